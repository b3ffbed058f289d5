"""ResNets in PyTorch files: torchvision's order of the layers, and the architecture of weights.

Source: torchvision/models/resnet.py.
"""

import re

import keras
import numpy as np

from moco_tf.backbones import resnet
from moco_tf.backbones.resnet import ResNet
from moco_tf.pretraining.config import Model

FAMILY = "a ResNet of torchvision"
ORDER = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample")
BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(\w+)(?:\.(\d))?$")


def layers_of(backbone: ResNet) -> list[keras.layers.Layer]:
    """The layers with weights in torchvision's order: stem, then block by block."""
    return sorted((layer for layer in backbone.layers if layer.variables), key=_place)


def _place(layer):
    match = BLOCK.match(layer.name)
    if not match:
        return 0, 0, ORDER.index(layer.name), 0
    stage, block, part, number = match.groups()
    return int(stage), int(block), ORDER.index(part), int(number or 0)


def describe(arrays: dict[str, np.ndarray]) -> tuple[Model, int]:
    """Infers the architecture of a ResNet from its weights.

    Args:
        arrays: weights by torchvision's names.

    Returns:
        `config.Model` whose backbone it is, and the number of features.

    Raises:
        ValueError: for an unknown architecture.
    """
    layers = [name.rpartition(".")[0] for name in arrays]
    depths = tuple(
        len({m[2] for m in map(BLOCK.match, layers) if m and m[1] == stage}) for stage in "1234"
    )
    stem, second = (arrays.get(n) for n in ("conv1.weight", "layer1.0.conv2.weight"))
    known = all(a is not None and a.ndim == 4 and a.size for a in (stem, second))
    if not (known and stem.shape[1] == 3 and stem.shape[2] in (3, 7)):
        raise ValueError(
            "The weights must be of a ResNet with torchvision's layers, for images of 3 channels, "
            f"or of a ViT of MoCo v3. Received: {', '.join(list(arrays)[:5])} and "
            f"{len(arrays) - 5} more."
        )
    block = "bottleneck" if "layer1.0.conv3.weight" in arrays else "basic"
    width, groups = stem.shape[0], second.shape[0] // second.shape[1]
    group_width = second.shape[1] * 64 // width if groups > 1 else 64
    name = _variant(block, depths, width, groups, group_width)
    default_width = resnet.VARIANTS[name].width
    model = Model(backbone=f"resnet:{name}", width=None if width == default_width else width)
    model.stem = "imagenet" if stem.shape[2] == 7 else "cifar"
    return model, width * 8 * (4 if block == "bottleneck" else 1)


def _variant(block, depths, width, groups, group_width):
    """Name of the architecture in `resnet.VARIANTS`; one of the same width if it exists."""
    same = {
        variant.width: name
        for name, variant in reversed(resnet.VARIANTS.items())
        if variant._replace(width=width) == (block, depths, width, groups, group_width)
    }
    if not same:
        raise ValueError(
            f"The backbone must be one of {', '.join(resnet.ADDRESSES)}, of any width. Received: "
            f"{block} blocks {depths} in {groups} groups, {width} channels wide."
        )
    return same.get(width, same[min(same)])
