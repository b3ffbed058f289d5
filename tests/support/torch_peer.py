"""MoCo in PyTorch, written from the papers, with the names of torchvision and the official code."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 in a bottleneck, beside a shortcut."""

    def __init__(self, inputs, width, stride, bottleneck):
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        self.depth = len(sizes)
        for i, (a, b, kernel, s) in enumerate(sizes, 1):
            conv = nn.Conv2d(a, b, kernel, s, kernel // 2, bias=False)
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y) if i < self.depth else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A ResNet whose modules have torchvision's names."""

    def __init__(self, depths, bottleneck, width=64, head=None):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = width
        for stage, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                stride = 2 if stage and not i else 1
                blocks.append(Block(inputs, width * 2**stage, stride, bottleneck))
                inputs = width * 2**stage * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        if head:
            self.fc = head(inputs)

    def features(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.avgpool(x).flatten(1)

    def forward(self, x):
        x = self.features(x)
        return self.fc(x) if hasattr(self, "fc") else x


def resnet(name, head=None, width=64):
    """ "18", "50" or "50x2"."""
    if name == "18":
        return ResNet((2, 2, 2, 2), False, width, head)
    return ResNet((3, 4, 6, 3), True, 2 * width if name == "50x2" else width, head)


def head(version, dim):
    """v1's or v2's projection head."""
    if version == "v1":
        return lambda c: nn.Linear(c, dim)
    return lambda c: nn.Sequential(nn.Linear(c, c), nn.ReLU(), nn.Linear(c, dim))


class MoCo(nn.Module):
    """Algorithm 1 on one device, without shuffling."""

    def __init__(self, make, dim, queue_size, momentum=0.999, temperature=0.2):
        super().__init__()
        self.encoder_q, self.encoder_k = make(), make()
        self.encoder_k.load_state_dict(self.encoder_q.state_dict())
        for p in self.encoder_k.parameters():
            p.requires_grad = False
        self.register_buffer("queue", F.normalize(torch.randn(dim, queue_size), dim=0))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.momentum, self.temperature = momentum, temperature

    def forward(self, x_q, x_k):
        """Logits, Nx(1+K); moves the key encoder and the queue."""
        q = F.normalize(self.encoder_q(x_q), dim=1)
        with torch.no_grad():
            for k, p in zip(self.encoder_k.parameters(), self.encoder_q.parameters()):
                k.mul_(self.momentum).add_(p, alpha=1 - self.momentum)
            keys = F.normalize(self.encoder_k(x_k), dim=1)
        logits = torch.cat([(q * keys).sum(1, keepdim=True), q @ self.queue.clone()], dim=1)
        start = int(self.queue_ptr)
        self.queue[:, start : start + len(keys)] = keys.T
        self.queue_ptr[0] = (start + len(keys)) % self.queue.shape[1]
        return logits / self.temperature


DIM, QUEUE = 16, 256  # of `make_moco`


def make_moco(name="18", version="v2", width=8, seed=0):
    """A `MoCo` with random BN, whose key encoder is not its query encoder."""
    torch.manual_seed(seed)

    def make():
        return randomized(resnet(name, head(version, DIM), width))

    model = MoCo(make, DIM, QUEUE, momentum=0.9)
    for p in model.encoder_k.parameters():
        p.mul_(1.1)
    return model


def images(*shape, seed=0):
    """Random normalised images, float32 NxHxWx3."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def torch_images(x):
    """NxHxWx3 arrays as torch has them, Nx3xHxW."""
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def randomized(module, seed=0):
    """Gives BN parameters and statistics, which start as ones and zeros, values of their own."""
    generator = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor in (m.weight.data, m.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (m.bias.data, m.running_mean):
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
    return module


def train(moco, optimizer, batches):
    """Steps of SGD on batches of two views, NxHxWx3 arrays; returns the losses."""
    losses = []
    for views in batches:
        logits = moco(*map(torch_images, views))
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def official(moco, optimizer=None, epoch=1, arch="resnet18"):
    """The dict that main_moco.py saves: the model was in DistributedDataParallel."""
    saved = {f"module.{name}": value for name, value in moco.state_dict().items()}
    result = {"epoch": epoch, "arch": arch, "state_dict": saved}
    return result if optimizer is None else {**result, "optimizer": optimizer.state_dict()}
