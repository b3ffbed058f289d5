"""Conversion of encoder weights to and from PyTorch's names and axes.

The layers have PyTorch's names. Convolutions are HWIO in Keras and OIHW in PyTorch; linear layers
are transposed.
"""

import re

import numpy as np

from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.resnet import ResNet
from moco_tf.backbones.vit import VisionTransformer
from moco_tf.interop import resnet_names, vit_names
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
TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}  # axes, by their number
FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}
HEAD = re.compile(r"fc(?:\.(\d))?$")


def named_variables(model: Encoder | ResNet | VisionTransformer) -> dict:
    """The variables of an encoder or a backbone, by PyTorch's names and in PyTorch's order.

    Args:
        model: `Encoder` with a ResNet or a ViT, or such a backbone alone.

    Returns:
        Dict from names such as "layer1.0.conv1.weight" to Keras variables.

    Raises:
        ValueError: for another backbone, or a head that is none of `heads`.
    """
    is_encoder = isinstance(model, Encoder)
    backbone = model.backbone if is_encoder else model
    layers = _names_of(backbone).layers_of(backbone)
    layers += _head_layers(model.head) if is_encoder and model.head is not None else []
    return {_name(layer, v): v for layer in layers for v in layer.variables}


def _names_of(backbone):
    """The module that knows a backbone's names in PyTorch."""
    if isinstance(backbone, VisionTransformer):
        return vit_names
    if isinstance(backbone, ResNet):
        return resnet_names
    raise ValueError(
        f"A ResNet or ViT is needed, received {backbone.name}: the formats of PyTorch take a "
        "backbone of moco_tf.backbones.resnet or moco_tf.backbones.vit."
    )


def _head_layers(head):
    layers = [layer for layer in getattr(head, "layers", [head]) if layer.variables]
    for layer in layers:
        if not HEAD.match(layer.name):
            raise ValueError(
                "The head must be `heads.linear`, `heads.mlp` or `heads.mlp_bn` to have a name in "
                f"PyTorch. Received: a head with the layer {layer.name}."
            )
    return layers


def _name(layer, variable):
    """PyTorch's name of a variable; a ViT's class token belongs to no module there."""
    suffix = SUFFIXES.get(variable.name)
    return f"{layer.name}.{suffix}" if suffix else variable.name


def to_torch(array: np.ndarray) -> np.ndarray:
    """A variable's value in PyTorch's axes: OIHW, or output x input."""
    array = np.asarray(array)
    return np.ascontiguousarray(array.transpose(TO_TORCH.get(array.ndim, range(array.ndim))))


def from_torch(array: np.ndarray) -> np.ndarray:
    """The inverse of `to_torch`."""
    return array.transpose(FROM_TORCH.get(array.ndim, range(array.ndim)))


def arrays_of(model: Encoder | ResNet | VisionTransformer) -> dict[str, np.ndarray]:
    """All weights of a model by PyTorch's names and in its axes: float32 arrays."""
    return {name: to_torch(v.numpy()) for name, v in named_variables(model).items()}


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
    backbone = encoder.backbone if isinstance(encoder, Encoder) else encoder
    if isinstance(backbone, VisionTransformer) and vit_names.is_vit(arrays):
        arrays = vit_names.without_positions(arrays, name)
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
        raise ValueError(
            f"{name} must have the weights of {backbone.name}, {_names_of(backbone).FAMILY}. "
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
        arrays: weights by PyTorch's names; the head is fc (v1), fc.0 and fc.2 (v2), or linear
            layers without biases and BN (v3).

    Returns:
        `config.Model`, and whether there is a head.

    Raises:
        ValueError: for an unknown architecture.
    """
    names = vit_names if vit_names.is_vit(arrays) else resnet_names
    model, features = names.describe(arrays)
    heads_by_last = {"fc.weight": "linear", "fc.2.weight": "mlp"}
    if has_projector(arrays):
        heads_by_last = {"fc.3.weight": "mlp_bn2", "fc.6.weight": "mlp_bn3"}
    for last, head in heads_by_last.items():
        if last in arrays:
            model.head, model.dim = head, _units(arrays, last)
    hidden = _units(arrays, "fc.0.weight") if "fc.0.weight" in arrays else features
    model.hidden = None if hidden == features else hidden
    return model, any(name.startswith("fc.") for name in arrays)


def has_projector(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the head is MoCo v3's projector, by the names of the weights."""
    return "fc.1.running_mean" in arrays and "fc.0.bias" not in arrays


def _units(arrays, name):
    """Units of a linear layer."""
    if arrays[name].ndim != 2:
        raise ValueError(
            f"The head must be of linear layers, output x input. Received: {name} of shape "
            f"{arrays[name].shape}."
        )
    return arrays[name].shape[0]
