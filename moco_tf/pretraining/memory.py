"""About how much memory a training step needs on a CPU, before it is run."""

import math
import pathlib
from typing import NamedTuple

import keras

from moco_tf.contrastive import Contrastive
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.log import log
from moco_tf.pretraining.config import Config

GB = 1e9
OVERHEAD = 0.7 * GB  # of threads, input and compiled graphs, by benchmarks/step_memory.py
COPIES = 4  # of the encoder's weights: query encoder, key encoder, velocity, gradients
MARGIN = 1.1  # a step is refused only if it needs this many times the machine's memory
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Machine(NamedTuple):
    """Memory of a machine or its container, swap included, in bytes."""

    total: float
    available: float


def row_bytes(model: Contrastive, config: Config) -> float:
    """Bytes that one row of a batch needs for activations and gradients.

    The outputs of all layers, which are kept until the backward pass, but batch normalization,
    whose gradient needs its input only; and the gradient of the largest.
    """
    backbone = model.encoder_q.backbone
    layers = [layer for layer in backbone.layers if "BatchNorm" not in type(layer).__name__]
    outputs = keras.Model(backbone.inputs, [layer.output for layer in layers])
    size = config.data.image_size_px
    channels = backbone.input_shape[-1]
    specs = outputs.compute_output_spec(keras.KerasTensor((1, size, size, channels)))
    sizes = [math.prod(spec.shape) for spec in keras.tree.flatten(specs)]
    floats = sum(sizes) + max(sizes)
    views = 2 if config.model.symmetric else 1
    return floats * views * (2 if config.mixed_bfloat16 else 4)


def fixed_bytes(model: Contrastive, layout: BatchLayout) -> float:
    """Bytes that a step needs for any batch: weights, velocity, gradients, queue, overhead."""
    others = sum(math.prod(v.shape) for v in model.weights) - 2 * model.encoder_q.count_params()
    floats = COPIES * model.encoder_q.count_params() + max(others, 0)
    return OVERHEAD + 4 * floats * layout.replicas / layout.hosts


def check(model: Contrastive, config: Config, layout: BatchLayout, machine: Machine | None):
    """Logs about how much memory a step on a CPU needs, and what would fit.

    Args:
        model: mechanism that will be trained.
        config: `Config` of the run.
        layout: `BatchLayout` of the run.
        machine: memory of this machine; None if it is not known.

    Raises:
        ValueError: if the step clearly needs more memory than the machine has.
    """
    if machine is None:
        return
    row, fixed = row_bytes(model, config), fixed_bytes(model, layout)
    need = fixed + layout.host_rows / config.gradient_accumulation * row
    text = (
        f"A step needs about {need / GB:.2g} GB of memory "
        f"({row / 1e6:.0f} MB for each row of {config.data.image_size_px} px)"
    )
    if need > MARGIN * machine.total:
        raise ValueError(
            f"{text}, more than the {machine.total / GB:.1f} GB that this machine has. "
            f"{_advice(config, layout, (machine.available - fixed) / row)}"
        )
    if need > machine.available:
        log.warning(
            "%s; %.1f GB are available. %s",
            text,
            machine.available / GB,
            _advice(config, layout, (machine.available - fixed) / row),
        )
        return
    log.info("%s; %.1f GB are available.", text, machine.available / GB)


def _advice(config, layout, rows):
    """What fits, if `rows` rows on this host do."""
    smaller = "a smaller config, such as configs/tiny_imagenet.py or configs/quickstart.py"
    group = config.model.bn_group_size or 1
    unit = group * layout.replicas // layout.hosts
    ways = []
    for accumulation in range(config.gradient_accumulation + 1, layout.host_rows // unit + 1):
        fits = layout.host_rows / accumulation <= rows
        if fits and layout.host_rows % (accumulation * unit) == 0:
            ways.append(f"--config.gradient_accumulation={accumulation}, which keeps the batch")
            break
    batch = int(rows // unit) * unit * layout.hosts
    if batch > 0:
        ways.append(f"--config.batch_size={min(batch, config.batch_size)}")
    if not ways and group > 1:
        ways.append("a smaller --config.model.bn_group_size and batch")
    return f"Use {', or '.join([*ways, smaller])}."


def machine() -> Machine | None:
    """The memory of this machine, or of its container if that has less; None if not on Linux."""
    path = pathlib.Path("/proc/meminfo")
    if not path.exists():
        return None
    lines = (line.split() for line in path.read_text().splitlines())
    sizes = {name.rstrip(":"): 1024 * int(size) for name, size, *_ in lines}
    swap = sizes.get("SwapTotal", 0)
    total = sizes["MemTotal"] + swap
    available = sizes.get("MemAvailable", sizes["MemFree"]) + sizes.get("SwapFree", 0)
    for name in LIMITS:
        limit = pathlib.Path(name)
        if limit.exists() and limit.read_text().strip().isdigit():
            total = min(total, int(limit.read_text()))
    return Machine(total, min(total, available))
