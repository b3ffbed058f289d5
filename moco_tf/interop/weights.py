"""An encoder's weights by torch's names and in torch's axes, and the encoder that they are of.

Our layers have torchvision's names; convolutions are HWIO here and OIHW there, linear layers
transposed. Source: torchvision/models/resnet.py.
"""

import re

import numpy as np

from moco_tf.backbones import resnet
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


def named_variables(encoder):
    """The variables of an encoder or a backbone, by torch's names and in the order of its modules.

    Args:
        encoder: `keras.Model` of our ResNets, with or without a head.

    Returns:
        Dict from names such as "layer1.0.conv1.weight" to Keras variables.
    """
    layers = [layer for part in encoder.layers for layer in getattr(part, "layers", [part])]
    layers = sorted((layer for layer in layers if layer.variables), key=_place)
    return {f"{layer.name}.{SUFFIXES[v.name]}": v for layer in layers for v in layer.variables}


def _place(layer):
    """Where torchvision has a layer: stem, then block by block, then the head."""
    found = BLOCK.match(layer.name)
    if found:
        stage, block, part, number = found.groups()
        return int(stage), int(block), ORDER.index(part), int(number or 0)
    if layer.name.startswith("fc"):
        return 5, 0, 0, int(layer.name[3:] or 0)
    return 0, 0, ORDER.index(layer.name), 0


def to_torch(array):
    """A variable's value in torch's axes: OIHW, or output x input."""
    array = np.asarray(array)
    return np.ascontiguousarray(array.transpose({4: (3, 2, 0, 1)}.get(array.ndim)))


def from_torch(array):
    """The inverse of `to_torch`."""
    return array.transpose({4: (2, 3, 1, 0)}.get(array.ndim))


def arrays_of(encoder):
    """All weights of an encoder, as torch has them: dict of float32 arrays."""
    return {name: to_torch(v.numpy()) for name, v in named_variables(encoder).items()}


def set_arrays(encoder, arrays, what="The encoder"):
    """Sets all weights of an encoder.

    Raises:
        ValueError: for arrays that are missing, unknown, or of another shape.
    """
    variables = named_variables(encoder)
    missing = [name for name in variables if name not in arrays]
    unexpected = [name for name in arrays if name not in variables]
    wrong = [
        f"{name}: {tuple(arrays[name].shape)} instead of {shape}"
        for name, v in variables.items()
        if name in arrays and arrays[name].shape != (shape := to_torch(v.numpy()).shape)
    ]
    problems = [
        f"{len(names)} {kind}, such as {', '.join(names[:5])}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", wrong),
        )
        if names
    ]
    if problems:
        name = next((layer.name for layer in encoder.layers if "resnet" in layer.name), "")
        raise ValueError(
            f"{what} must have the weights of {name}, a ResNet as torchvision has them. "
            f"Received: {'; '.join(problems)}. {_cause(missing, unexpected)}"
        )
    for name, variable in variables.items():
        variable.assign(from_torch(arrays[name].astype(np.float32)))


def _cause(missing, unexpected):
    names = " ".join(unexpected)
    if re.search(r"fc\.\d\.running_mean", names):
        return "The head has batch normalisation, which MoCo v1 and v2 have not; v3's has."
    if "fc" in names:
        return "The head is neither v1's (one linear layer) nor v2's (linear, ReLU, linear)."
    if re.search(r"conv\d\.bias", names):
        return "Convolutions with a bias are not torchvision's."
    if missing and not unexpected:
        return "The file is cut short, or holds a part of the model."
    return "The architecture is another one, or its layers have other names."


def describe(arrays):
    """What encoder the arrays of torch are of.

    Args:
        arrays: dict of arrays by torchvision's names; the head is fc (v1) or fc.0 and fc.2 (v2).

    Returns:
        `config.Model`, and whether there is a head.

    Raises:
        ValueError: for another architecture.
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
            f"Received: {', '.join(list(arrays)[:5])} and {len(arrays) - 5} more. A vision "
            "transformer (MoCo v3) is none."
        )
    kind = "bottleneck" if "layer1.0.conv3.weight" in arrays else "basic"
    width, groups = stem.shape[0], second.shape[0] // second.shape[1]
    shape = (kind, depths, groups, second.shape[1] if groups > 1 else 64)
    known = {}
    for address in resnet.ADDRESSES:
        known.setdefault(_shape(address), []).append(address)
    if shape not in known:
        raise ValueError(
            f"The backbone must be one of {', '.join(resnet.ADDRESSES)}, of any width. Received: "
            f"{kind} blocks {depths} in {groups} groups, {width} channels wide."
        )
    own = {_width(address): address for address in known[shape]}
    model = Model(backbone=own.get(width, known[shape][0]), width=None if width in own else width)
    model.stem = "imagenet" if stem.shape[2] == 7 else "cifar"
    for head, last in (("linear", "fc.weight"), ("mlp", "fc.2.weight")):
        if last in arrays:
            model.head, model.dim = head, arrays[last].shape[0]
    features = width * 8 * (4 if kind == "bottleneck" else 1)
    hidden = arrays["fc.0.weight"].shape[0] if "fc.0.weight" in arrays else features
    model.hidden = None if hidden == features else hidden
    return model, any(name.startswith("fc.") for name in arrays)


def _layers(arrays):
    return [name.rpartition(".")[0] for name in arrays]


def _shape(address):
    block, depths = _builder(address).args
    keywords = _builder(address).keywords
    kind = "bottleneck" if block is resnet.bottleneck_block else "basic"
    return kind, depths, keywords.get("groups", 1), keywords.get("group_width", 64)


def _width(address):
    return _builder(address).keywords.get("width", 64)


def _builder(address):
    return getattr(resnet, address.partition(":")[2])
