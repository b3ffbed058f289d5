"""Conversion of encoder weights to and from PyTorch's names and axes.

The layers have torchvision's names. Convolutions are HWIO in Keras and OIHW in PyTorch; linear
layers are transposed. Source: torchvision/models/resnet.py.
"""

import re

import numpy as np

from moco_tf.backbones import resnet
from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.resnet import ResNet
from moco_tf.pretraining.config import Model

SUFFIXES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
STATISTICS = ("running_mean", "running_var")
ORDER = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "downsample")
BLOCK = re.compile(r"layer([1-4])\.(\d+)\.(\w+)(?:\.(\d))?$")
HEAD = re.compile(r"fc(?:\.(\d))?$")


def named_variables(model: Encoder | ResNet) -> dict:
    """The variables of an encoder or a backbone, by PyTorch's names and in PyTorch's order.

    Args:
        model: `Encoder` with a ResNet, or a `ResNet` alone.

    Returns:
        Dict from names such as "layer1.0.conv1.weight" to Keras variables.

    Raises:
        ValueError: for another backbone, or another head than `heads.linear` and `heads.mlp`.
    """
    layers = [layer for layer in _all_layers(model) if layer.variables]
    layers.sort(key=_place)
    return {f"{layer.name}.{SUFFIXES[v.name]}": v for layer in layers for v in layer.variables}


def _all_layers(model):
    if not isinstance(model, Encoder):
        return list(resnet.require_resnet(model).layers)
    head = [] if model.head is None else getattr(model.head, "layers", [model.head])
    return [*resnet.require_resnet(model.backbone).layers, *head]


def _place(layer):
    """Sort key of a layer in torchvision's order: stem, then block by block, then the head."""
    match = BLOCK.match(layer.name)
    if match:
        stage, block, part, number = match.groups()
        return int(stage), int(block), ORDER.index(part), int(number or 0)
    if layer.name in ORDER:
        return 0, 0, ORDER.index(layer.name), 0
    match = HEAD.match(layer.name)
    if match:
        return 5, 0, 0, int(match[1] or 0)
    raise ValueError(
        "The head must be `heads.linear` or `heads.mlp` to have a name in PyTorch. Received: a "
        f"head with the layer {layer.name}."
    )


def to_torch(array: np.ndarray) -> np.ndarray:
    """A variable's value in PyTorch's axes: OIHW, or output x input."""
    array = np.asarray(array)
    return np.ascontiguousarray(array.transpose({4: (3, 2, 0, 1)}.get(array.ndim)))


def from_torch(array: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch`."""
    return array.transpose({4: (2, 3, 1, 0)}.get(array.ndim))


def arrays_of(encoder: Encoder | ResNet) -> dict[str, np.ndarray]:
    """All weights of a model by PyTorch's names and in its axes: float32 arrays."""
    return {name: to_torch(v.numpy()) for name, v in named_variables(encoder).items()}


def set_arrays(encoder: Encoder, arrays: dict[str, np.ndarray], name: str = "The encoder"):
    """Sets all weights of an encoder.

    Args:
        encoder: encoder to change.
        arrays: weights by PyTorch's names and in its axes.
        name: name of the arrays' origin, for messages.

    Raises:
        ValueError: for arrays that are missing, unknown, or of another shape.
    """
    variables = named_variables(encoder)
    missing = [key for key in variables if key not in arrays]
    unexpected = [key for key in arrays if key not in variables]
    wrong = [
        f"{key}: {tuple(arrays[key].shape)} instead of {shape}"
        for key, v in variables.items()
        if key in arrays and arrays[key].shape != (shape := to_torch(v.numpy()).shape)
    ]
    problems = [
        f"{len(names)} {problem}, such as {', '.join(names[:5])}"
        for problem, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", wrong),
        )
        if names
    ]
    if problems:
        architecture = encoder.backbone.name if isinstance(encoder, Encoder) else encoder.name
        raise ValueError(
            f"{name} must have the weights of {architecture}, a ResNet of torchvision. "
            f"Received: {'; '.join(problems)}. {_cause(missing, unexpected)}"
        )
    for key, variable in variables.items():
        variable.assign(from_torch(arrays[key].astype(np.float32)))


def _cause(missing, unexpected):
    names = " ".join(unexpected)
    if re.search(r"fc\.\d\.running_mean", names):
        return "The head has batch normalization, as in MoCo v3. MoCo v1 and v2 have none."
    if "fc" in names:
        return "The head is neither v1's (one linear layer) nor v2's (linear, ReLU, linear)."
    if re.search(r"conv\d\.bias", names):
        return "Its convolutions have a bias, which torchvision's ResNets do not."
    if missing and not unexpected:
        return "The file is incomplete, or holds a part of the model."
    return "The architecture is another one, or its layers have other names."


def describe(arrays: dict[str, np.ndarray]) -> tuple[Model, bool]:
    """Infers the architecture of an encoder from its weights.

    Args:
        arrays: weights by torchvision's names; the head is fc (v1), or fc.0 and fc.2 (v2).

    Returns:
        `config.Model`, and whether there is a head.

    Raises:
        ValueError: for an unknown architecture.
    """
    depths = tuple(
        len({m[2] for m in map(BLOCK.match, _layers(arrays)) if m and m[1] == stage})
        for stage in "1234"
    )
    stem, second = (arrays.get(n) for n in ("conv1.weight", "layer1.0.conv2.weight"))
    heads = [arrays[n] for n in ("fc.weight", "fc.0.weight", "fc.2.weight") if n in arrays]
    known = all(a is not None and a.ndim == 4 and a.size for a in (stem, second))
    known = known and stem.shape[1] == 3 and stem.shape[2] in (3, 7)
    if not known or any(head.ndim != 2 for head in heads):
        raise ValueError(
            "The weights must be of a ResNet with torchvision's layers, for images of 3 channels. "
            f"Received: {', '.join(list(arrays)[:5])} and {len(arrays) - 5} more. Vision "
            "transformers (MoCo v3) cannot be imported."
        )
    block = "bottleneck" if "layer1.0.conv3.weight" in arrays else "basic"
    width, groups = stem.shape[0], second.shape[0] // second.shape[1]
    group_width = second.shape[1] * 64 // width if groups > 1 else 64
    name = _variant(block, depths, width, groups, group_width)
    default_width = resnet.VARIANTS[name].width
    model = Model(backbone=f"resnet:{name}", width=None if width == default_width else width)
    model.stem = "imagenet" if stem.shape[2] == 7 else "cifar"
    for head, last in (("linear", "fc.weight"), ("mlp", "fc.2.weight")):
        if last in arrays:
            model.head, model.dim = head, arrays[last].shape[0]
    features = width * 8 * (4 if block == "bottleneck" else 1)
    hidden = arrays["fc.0.weight"].shape[0] if "fc.0.weight" in arrays else features
    model.hidden = None if hidden == features else hidden
    return model, any(name.startswith("fc.") for name in arrays)


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


def _layers(arrays):
    return [name.rpartition(".")[0] for name in arrays]
