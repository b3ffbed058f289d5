"""The peer of the step benchmark: MoCo in PyTorch, as the official code's one-GPU training step.

Written from the papers and PyTorch's documentation: a ResNet with torchvision's layers and
initialisation, the queue as a buffer of columns, concatenated logits with cross-entropy, a momentum
update in a loop over parameters, `torch.optim.SGD`, accuracy by top-k.
"""

import torch
from torch import nn
from torch.nn import functional as F


class GroupedBatchNorm(nn.BatchNorm2d):
    """BN over groups of rows, which one device needs for shuffle-BN; the CIFAR-10 demo's."""

    def __init__(self, channels, groups):
        super().__init__(channels)
        self.groups = groups

    def forward(self, x):
        if not self.training or self.groups == 1:
            return super().forward(x)
        n, c, h, w = x.shape
        # Rows n mod groups share statistics: groups become channels.
        mean, variance = self.running_mean.repeat(self.groups), self.running_var.repeat(self.groups)
        y = F.batch_norm(
            x.reshape(-1, c * self.groups, h, w),
            mean,
            variance,
            self.weight.repeat(self.groups),
            self.bias.repeat(self.groups),
            training=True,
            momentum=self.momentum,
            eps=self.eps,
        )
        self.running_mean.copy_(mean.view(self.groups, c).mean(dim=0))
        self.running_var.copy_(variance.view(self.groups, c).mean(dim=0))
        return y.reshape(n, c, h, w)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 in a bottleneck."""

    def __init__(self, inputs, width, stride, bottleneck, norm):
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        if bottleneck:
            convolutions = [
                (inputs, width, 1, 1),
                (width, width, 3, stride),
                (width, outputs, 1, 1),
            ]
        else:
            convolutions = [(inputs, width, 3, stride), (width, width, 3, 1)]
        layers = []
        for i, o, kernel, s in convolutions:
            conv = nn.Conv2d(i, o, kernel, stride=s, padding=kernel // 2, bias=False)
            layers += [conv, norm(o), nn.ReLU(inplace=True)]
        self.path = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, norm(outputs))

    def forward(self, x):
        return F.relu(self.path(x) + self.shortcut(x), inplace=True)


def encoder(depths, *, bottleneck, width=64, stem="imagenet", head="mlp", dim=128, bn_groups=1):
    """A ResNet with projection head, initialised as torchvision and the official code do."""

    def norm(channels):
        return GroupedBatchNorm(channels, bn_groups)

    if stem == "cifar":
        layers = [nn.Conv2d(3, width, 3, padding=1, bias=False), norm(width), nn.ReLU(inplace=True)]
    else:
        layers = [
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            norm(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
    inputs = width
    for stage, depth in enumerate(depths):
        for i in range(depth):
            stride = 2 if stage and not i else 1
            layers.append(Block(inputs, width * 2**stage, stride, bottleneck, norm))
            inputs = width * 2**stage * (4 if bottleneck else 1)
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for module in nn.Sequential(*layers).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    if stem == "cifar":
        layers[0].reset_parameters()  # the replaced stem keeps torch's default
    if head == "mlp":
        layers += [nn.Linear(inputs, inputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(inputs, dim))


class MoCo:
    """Both encoders, the queue, the optimizer, and the step.

    Args:
        encoder_q, encoder_k: equal encoders; the second's weights are overwritten.
        queue_size: K, a multiple of the batch.
        momentum: of the key encoder.
        temperature: of the logits.
        learning_rate, weight_decay: of SGD with momentum .9.
    """

    def __init__(
        self, encoder_q, encoder_k, queue_size, momentum, temperature, learning_rate, weight_decay
    ):
        self.q, self.k = encoder_q, encoder_k
        self.k.load_state_dict(self.q.state_dict())
        self.k.requires_grad_(False)
        dim = encoder_q[-1].out_features
        self.queue = F.normalize(torch.randn(dim, queue_size), dim=0)
        self.pointer, self.momentum, self.temperature = 0, momentum, temperature
        self.optimizer = torch.optim.SGD(
            self.q.parameters(), learning_rate, momentum=0.9, weight_decay=weight_decay
        )

    def step(self, x_q, x_k):
        """One step on two batches of views, NCHW; returns loss, top-1 and top-5 as floats."""
        q = F.normalize(self.q(x_q), dim=1)
        with torch.no_grad():
            for v_k, v_q in zip(self.k.parameters(), self.q.parameters()):
                v_k.data = v_k.data * self.momentum + v_q.data * (1 - self.momentum)
            order = torch.randperm(len(x_k))
            k = F.normalize(self.k(x_k[order]), dim=1)[torch.argsort(order)]
        l_pos = torch.einsum("nc,nc->n", q, k).unsqueeze(1)
        l_neg = torch.einsum("nc,ck->nk", q, self.queue.clone().detach())
        logits = torch.cat([l_pos, l_neg], dim=1) / self.temperature
        loss = F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))
        with torch.no_grad():
            hits = logits.topk(5, dim=1).indices == 0
            top1, top5 = hits[:, :1].sum() / len(q), hits.sum() / len(q)
        n = len(k)
        self.queue[:, self.pointer : self.pointer + n] = k.T
        self.pointer = (self.pointer + n) % self.queue.shape[1]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item(), top1.item(), top5.item()
