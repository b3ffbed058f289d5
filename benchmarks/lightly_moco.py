"""MoCo v2 on CIFAR-10 by lightly, the peer of benchmarks/peers.py, as lightly's own example has it.

    python benchmarks/lightly_moco.py trial|train|features --data=DIR --output=FILE ...

`trial` prints the fastest layout of memory and number of loading processes. `train` trains and
writes the backbone. `features` writes those of the training and test images.

Model, loss, momentum update, shuffling and views are lightly's, the loader, optimizer and schedule
are torch's, after examples/pytorch/moco.py and the CIFAR-10 tutorial of lightly-ai/lightly.
"""

import argparse
import copy
import importlib.metadata
import json
import random
import time

import cifar_binary
import numpy as np
import torch
from PIL import Image
from torch import nn

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
TRIAL_STEPS = 8
FEATURE_ROWS = 500  # images at a time
WIDE = 64  # channels of a whole ResNet-18's first stage


def import_torchvision():
    """Imports torchvision, also beside a torch of another build, where its operators do not load.

    Its views need none of them; it only must find the two names.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
        return library
    return None


LIBRARY = import_torchvision()  # its declarations end with it

from lightly.loss import NTXentLoss  # noqa: E402
from lightly.models import ResNetGenerator  # noqa: E402
from lightly.models.modules import MoCoProjectionHead  # noqa: E402
from lightly.models.utils import (  # noqa: E402
    batch_shuffle,
    batch_unshuffle,
    deactivate_requires_grad,
    update_momentum,
)
from lightly.transforms import MoCoV2Transform  # noqa: E402


class Views(torch.utils.data.Dataset):
    """Two views of each image, a PIL image made of an array as torchvision's CIFAR10 does."""

    def __init__(self, images):
        self.images = images
        self.views = MoCoV2Transform(
            input_size=cifar_binary.SIDE,
            min_scale=0.08,
            gaussian_blur=0.0,
            normalize={"mean": MEAN, "std": STD},
        )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.views(Image.fromarray(self.images[index]))


def initialize(resnet):
    """Initializes the convolutions after the stem as torchvision, the official code and moco_tf do.

    lightly's example takes torchvision's network. lightly's generator, which has the CIFAR stem,
    leaves torch's default, of .41 or .58 times that scale. BN cancels the scale in the forward
    pass, but an SGD step changes smaller weights by a larger share, as if the learning rate were 3
    to 6 times as high.
    """
    for name, layer in resnet.named_modules():
        if isinstance(layer, nn.Conv2d) and name != "conv1":
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


class MoCo(nn.Module):
    """Both encoders of lightly's example, on a narrow ResNet-18 with the CIFAR stem."""

    def __init__(self, width, dim, bn_groups):
        super().__init__()
        splits = 0 if bn_groups == 1 else bn_groups  # 0: nn.BatchNorm2d
        resnet = ResNetGenerator("resnet-18", width=width / WIDE, num_splits=splits)
        initialize(resnet)
        stages = (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        self.backbone = nn.Sequential(
            resnet.conv1, resnet.bn1, nn.ReLU(inplace=True), *stages, nn.AdaptiveAvgPool2d(1)
        )
        features = 8 * width
        self.projection_head = MoCoProjectionHead(features, features, dim)
        self.backbone_momentum = copy.deepcopy(self.backbone)
        self.projection_head_momentum = copy.deepcopy(self.projection_head)
        deactivate_requires_grad(self.backbone_momentum)
        deactivate_requires_grad(self.projection_head_momentum)

    def forward(self, x):
        """Embeddings of queries."""
        return self.projection_head(self.backbone(x).flatten(start_dim=1))

    @torch.no_grad()
    def forward_momentum(self, x):
        """Embeddings of keys, by the momentum encoder on the shuffled batch."""
        x, order = batch_shuffle(x)
        key = self.projection_head_momentum(self.backbone_momentum(x).flatten(start_dim=1))
        return batch_unshuffle(key, order)


class Training:
    """Model, loss, optimizer and schedule of a run.

    Args:
        args: command line.
        channels_last: whether convolutions work on this layout.
    """

    def __init__(self, args, channels_last):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.layout, self.momentum = layout, args.momentum
        self.model = MoCo(args.width, args.dim, args.batch // args.bn_group_size)
        self.model.to(memory_format=layout)
        self.loss = NTXentLoss(args.temperature, memory_bank_size=(args.queue_size, args.dim))
        self.optimizer = torch.optim.SGD(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=args.learning_rate,
            momentum=0.9,
            weight_decay=args.weight_decay,
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, args.epochs)

    def step(self, views):
        """One step on a batch of two views; returns the loss."""
        model = self.model
        update_momentum(model.backbone, model.backbone_momentum, m=self.momentum)
        update_momentum(model.projection_head, model.projection_head_momentum, m=self.momentum)
        x_q, x_k = (x.to(memory_format=self.layout) for x in views)
        loss = self.loss(model(x_q), model.forward_momentum(x_k))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


def loader(args, workers):
    """torch's loader of shuffled batches of two views, made by so many processes."""
    images, _ = cifar_binary.read(args.data, "train", args.images)
    return torch.utils.data.DataLoader(
        Views(images),
        batch_size=args.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def trial(args):
    """Prints the fastest layout and number of loading processes, each measured on a few steps.

    Layouts are tried on one batch: contiguous alone with BN groups, since lightly's SplitBatchNorm
    cannot work on channels-last.
    """
    batch = next(iter(loader(args, 0)))
    speeds = {}
    for channels_last in (False, True) if args.bn_group_size == args.batch else (False,):
        speeds[channels_last] = speed(Training(args, channels_last), iter(lambda: batch, None))
    layout = max(speeds, key=speeds.get)
    cores = torch.get_num_threads()
    loaded = {}
    for workers in sorted({1, max(1, cores // 2), cores}):
        training = Training(args, layout)
        loaded[workers] = speed(training, endless(loader(args, workers)))
    settings = {"channels_last": layout, "workers": max(loaded, key=loaded.get)}
    versions = {"version": importlib.metadata.version("lightly"), "torch": torch.__version__}
    print(json.dumps(settings | versions))


def endless(batches):
    """Batches of epoch after epoch."""
    while True:
        yield from batches


def speed(training, batches):
    """Steps per second on the batches of an iterator, after half as many to warm up."""
    for _ in range(TRIAL_STEPS // 2):
        training.step(next(batches))
    start = time.perf_counter()
    for _ in range(TRIAL_STEPS):
        training.step(next(batches))
    return TRIAL_STEPS / (time.perf_counter() - start)


def train(args):
    """Trains, prints the images per second after the first steps, and writes the backbone."""
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    training = Training(args, args.channels_last)
    batches = loader(args, args.workers)
    done, start = 0, None
    for epoch in range(args.epochs):
        losses = []
        for views in batches:
            losses.append(training.step(views))
            done += 1
            if done == args.warmup_steps:
                start = time.perf_counter()
        training.schedule.step()
        print(f"epoch {epoch + 1} loss {np.mean(losses):.3f}", flush=True)
    images = (done - args.warmup_steps) * args.batch
    torch.save(training.model.backbone.state_dict(), args.output)
    print(json.dumps({"images_per_second": images / (time.perf_counter() - start)}))


@torch.no_grad()
def write_features(args):
    """Writes the backbone's features of the training and the test images to an .npz file."""
    model = MoCo(args.width, args.dim, args.batch // args.bn_group_size)
    backbone = model.backbone
    backbone.load_state_dict(torch.load(args.weights, weights_only=True))
    backbone.eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    arrays = {}
    for split, count in (("train", args.images), ("test", None)):
        images, _ = cifar_binary.read(args.data, split, count)
        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        rows = [backbone((rows / 255 - mean) / std).flatten(1) for rows in x.split(FEATURE_ROWS)]
        arrays[split] = torch.cat(rows).numpy()
    np.savez(args.output, **arrays)
    print(json.dumps({split: x.shape for split, x in arrays.items()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = {"trial": trial, "train": train, "features": write_features}
    parser.add_argument("task", choices=tasks)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's binary version")
    parser.add_argument("--output", help="file to write")
    parser.add_argument("--weights", help="file that `train` wrote, for `features`")
    for name in ("images", "batch", "epochs", "width", "dim", "queue_size", "bn_group_size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("momentum", "temperature", "learning_rate", "weight_decay"):
        parser.add_argument(f"--{name}", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warmup_steps", type=int, default=1, help="steps that are not timed")
    parser.add_argument("--workers", type=int, default=1, help="loading processes")
    parser.add_argument("--channels_last", action="store_true")
    args = parser.parse_args()
    tasks[args.task](args)


if __name__ == "__main__":
    main()
