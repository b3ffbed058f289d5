"""Naming schemes: names of the weights in PyTorch checkpoints of MoCo, by implementation.

Source: moco/builder.py and main_lincls.py of the official code and of MoCo v3's; the MoCo of
lightly and its benchmarks, solo-learn, mmselfsup and mmpretrain; torchvision's ResNet, timm's ViT.
"""

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np

from moco_tf.interop.weights import STATISTICS
from moco_tf.log import log

QUEUE = ((r"(queue|queue_ptr)", r"\1"),)
CHILDREN = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}


class NamingScheme(NamedTuple):
    """Names of the arrays of an implementation. Patterns match whole names.

    Attributes:
        mark: pattern of a name that only this scheme and schemes above it in the list have.
        rules: pairs of a pattern and the common name. A common name is "q/..." in the query
            encoder, "k/..." in the key encoder, "queue" or "queue_ptr". The first match counts.
        left_out: pattern of names that are ignored.
        lost: what `left_out` leaves out of the encoders, in words for the log; "" for nothing.
    """

    mark: str
    rules: tuple
    left_out: str = "(?!)"  # matches nothing
    lost: str = ""


NAMING_SCHEMES = {
    "mmselfsup": NamingScheme(
        r"encoder_q\.0\..*",
        (
            (r"encoder_([qk])\.0\.(.*)", r"\1/\2"),
            (r"encoder_([qk])\.1\.mlp\.(.*)", r"\1/fc.\2"),
            (r"encoder_([qk])\.1\.(fc\..*)", r"\1/\2"),
            *QUEUE,
        ),
        r"(backbone|neck|head)\..*",
    ),
    "the official MoCo": NamingScheme(
        r"encoder_q\..*", ((r"encoder_([qk])\.(.*)", r"\1/\2"), *QUEUE)
    ),
    "mmpretrain": NamingScheme(
        r"encoder_k\.module\.0\..*",
        (
            (r"backbone\.(.*)", r"q/\1"),
            (r"neck\.mlp\.(.*)", r"q/fc.\1"),
            (r"neck\.(fc\..*)", r"q/\1"),
            (r"encoder_k\.module\.0\.(.*)", r"k/\1"),
            (r"encoder_k\.module\.1\.mlp\.(.*)", r"k/fc.\1"),
            (r"encoder_k\.module\.1\.(fc\..*)", r"k/\1"),
            *QUEUE,
        ),
        r"encoder_k\.steps|(data_preprocessor|head)\..*",
    ),
    "MoCo v3": NamingScheme(
        r"(base|momentum)_encoder\..*",
        (
            (r"base_encoder\.(?:fc|head)\.(.*)", r"q/fc.\1"),
            (r"base_encoder\.(.*)", r"q/\1"),
        ),
        r"(momentum_encoder|predictor)\..*",
        "the predictor and the momentum encoder",
    ),
    "lightly's benchmarks": NamingScheme(  # their `backbone` is the momentum encoder
        r"query_backbone\..*",
        (
            (r"query_backbone\.(.*)", r"q/\1"),
            (r"backbone\.(.*)", r"k/\1"),
            (r"query_projection_head\.layers\.(.*)", r"q/fc.\1"),
            (r"projection_head\.layers\.(.*)", r"k/fc.\1"),
        ),
        r"(criterion|online_classifier)\..*",
    ),
    "lightly": NamingScheme(
        r"backbone\.0\.weight",
        (
            *((rf"backbone\.{i}\.(.*)", rf"q/{name}.\1") for i, name in CHILDREN.items()),
            *((rf"backbone_momentum\.{i}\.(.*)", rf"k/{name}.\1") for i, name in CHILDREN.items()),
            (r"projection_head\.layers\.(.*)", r"q/fc.\1"),
            (r"projection_head_momentum\.layers\.(.*)", r"k/fc.\1"),
        ),
        r"criterion\..*",
    ),
    "solo-learn": NamingScheme(
        r"(momentum_backbone|projector)\..*",
        (
            (r"backbone\.(.*)", r"q/\1"),
            (r"projector\.(.*)", r"q/fc.\1"),
            (r"momentum_backbone\.(.*)", r"k/\1"),
            (r"momentum_projector\.(.*)", r"k/fc.\1"),
            *QUEUE,
        ),
        r"(momentum_)?classifier\..*",
    ),
    "a backbone alone": NamingScheme(
        r"backbone\.conv1\..*", ((r"backbone\.(.*)", r"q/\1"),), r"(neck|head).*"
    ),
    "a sequence of torchvision's layers": NamingScheme(
        r"4\.0\.conv1\.weight",
        tuple((rf"{i}\.(.*)", rf"q/{name}.\1") for i, name in CHILDREN.items()),
    ),
    "timm's ViT": NamingScheme(r"cls_token", ((r"head\.(.*)", r"q/fc.\1"), (r"(.*)", r"q/\1"))),
    "torchvision": NamingScheme(r"conv1\.weight", ((r"(.*)", r"q/\1"),)),
}


@dataclasses.dataclass
class State:
    """Training state of a MoCo run, under PyTorch's names and in PyTorch's layout.

    Attributes:
        query: arrays of the query encoder by the names of torchvision's ResNet or timm's ViT; the
            head is fc (v1), fc.0 and fc.2 (v2), or with BN (v3).
        key: arrays of the key encoder by the same names, or None.
        queue: float32 KxD, or None.
        queue_ptr: row of the queue that is overwritten next.
        velocity: SGD's momentum buffers by the names in `query`, or None.
        group: SGD's settings lr, momentum and weight_decay; None without a velocity.
        epoch: epochs done; 0 if unknown.
        forwards: batches that the query encoder's BN has seen in training; 0 if unknown.
        image_size_px: side of the images that a file gives the positions of a ViT for.
        scheme: name in `NAMING_SCHEMES` of the scheme of the file.
    """

    query: dict
    key: dict | None = None
    queue: np.ndarray | None = None
    queue_ptr: int = 0
    velocity: dict | None = None
    group: dict | None = None
    epoch: int = 0
    forwards: int = 0
    image_size_px: int = 224
    scheme: str = ""


def parse(saved: Any) -> State:
    """Parses a PyTorch checkpoint.

    Args:
        saved: content of the file, from `torch_file.read`.

    Raises:
        ValueError: if the names fit none of the `NAMING_SCHEMES`.
    """
    arrays = _state_dict(saved)
    scheme, parts, names = _rename(arrays)
    query, key = (_encoder(parts, letter) for letter in "qk")
    queue, queue_ptr = _queue(parts)
    tracked = [int(v.max()) for n, v in query.items() if n.endswith("tracked") and v.size]
    query, key = (
        {n: v for n, v in part.items() if not n.endswith("num_batches_tracked")}
        for part in (query, key)
    )
    velocity, group = _optimizer(saved, names, query) or (None, None)
    return State(
        query=query,
        key=key or None,
        queue=queue,
        queue_ptr=queue_ptr,
        velocity=velocity,
        group=group,
        epoch=saved.get("epoch", 0) if isinstance(saved.get("epoch"), int) else 0,
        forwards=max(tracked, default=0),
        scheme=scheme,
    )


def _queue(parts):
    """The queue, KxD, and its pointer; None and 0 without one."""
    queue, pointer = parts.get("queue"), parts.get("queue_ptr", np.zeros(1, np.int64))
    if queue is None:
        return None, 0
    # solo-learn has a queue for each view; take the first.
    queue = queue[0] if queue.ndim == 3 else queue
    if queue.ndim != 2 or not np.isfinite(queue).all():
        raise ValueError(
            f"The queue must be finite numbers, DxK. Received: {queue.dtype} {queue.shape}"
            + (", not all finite." if queue.ndim == 2 else ".")
        )
    if pointer.size != 1 or not 0 <= pointer.item() < queue.shape[1]:
        raise ValueError(
            f"queue_ptr must be a column of the queue, below {queue.shape[1]}. Received: "
            f"{pointer.tolist()}."
        )
    return np.ascontiguousarray(queue.T), int(pointer.item())


def _state_dict(saved):
    for name in ("state_dict", "model"):
        if isinstance(saved, dict) and isinstance(saved.get(name), dict):
            saved = saved[name]
    arrays = {
        name: value
        for name, value in (saved.items() if isinstance(saved, dict) else ())
        if isinstance(name, str) and isinstance(value, np.ndarray)
    }
    if not arrays:
        raise ValueError(
            "A PyTorch file must be a state dict of named tensors, or hold one as `state_dict` or "
            f"`model`. Received: {list(saved)[:5] if isinstance(saved, dict) else type(saved)}."
        )
    if all(name.startswith("module.") for name in arrays):  # from DistributedDataParallel
        arrays = {name.removeprefix("module."): value for name, value in arrays.items()}
    return arrays


def _rename(arrays):
    """Returns the scheme's name, the arrays by common names, and common names by file names."""
    marked = [
        n
        for n, scheme in NAMING_SCHEMES.items()
        if any(re.fullmatch(scheme.mark, a) for a in arrays)
    ]
    if not marked:
        raise ValueError(
            f"The names in a PyTorch file must be those of {', '.join(NAMING_SCHEMES)}. Received: "
            f"{', '.join(list(arrays)[:5])} and {max(len(arrays) - 5, 0)} more."
        )
    scheme = NAMING_SCHEMES[marked[0]]
    parts, names, unknown = {}, {}, []
    for name in arrays:
        matches = ((re.fullmatch(pattern, name), common) for pattern, common in scheme.rules)
        common = next((match.expand(common) for match, common in matches if match), None)
        if common:
            names[name] = common
            parts[common] = arrays[name]
        elif not re.fullmatch(scheme.left_out, name):
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"A file with the names of {marked[0]} must have no other names. Received: "
            f"{', '.join(unknown[:5])} ({len(unknown)} in all). Was the model changed?"
        )
    if scheme.lost:
        log.warning("Of a file of %s the base encoder is read, without %s.", marked[0], scheme.lost)
    return marked[0], parts, names


def _encoder(parts, letter):
    arrays = {n.removeprefix(f"{letter}/"): v for n, v in parts.items() if n[:2] == f"{letter}/"}
    in_head = {n for n in arrays if n.startswith("fc.")}
    if "fc.0.weight" in in_head <= {"fc.0.weight", "fc.0.bias"}:  # a sequence of one layer
        arrays = {n.replace("fc.0.", "fc."): v for n, v in arrays.items()}
    return arrays


def is_parameter(name: str) -> bool:
    """Whether an array is a trained parameter, and no BN statistic."""
    return name.rpartition(".")[2] not in (*STATISTICS, "num_batches_tracked")


def _optimizer(saved, names, query):
    """Momentum buffers by the names in `query`, and settings; None if the form is unknown."""
    optimizer = saved.get("optimizer")
    match optimizer:
        case {"state": dict(moments), "param_groups": [{"params": list(numbers)} as group]}:
            pass
        case _:
            return None
    # Parameters are numbered in the order of the modules, including the key encoder's.
    ordered = [n for n in names.values() if n[:2] in ("q/", "k/") and is_parameter(n)]
    if len(numbers) not in (len(ordered), sum(map(is_parameter, query))):
        log.warning("The optimizer's state has another number of parameters and is ignored.")
        return None
    buffers = {}
    for number, name in zip(numbers, ordered, strict=False):
        if name[:2] == "q/":
            match moments.get(number):
                case {"momentum_buffer": np.ndarray() as buffer} if (
                    buffer.shape == query[name[2:]].shape
                ):
                    buffers[name[2:]] = buffer
                case _:
                    return None
    settings = ("lr", "momentum", "weight_decay")
    return buffers, {n: group[n] for n in settings if isinstance(group.get(n), (int, float))}
