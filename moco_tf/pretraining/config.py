"""The configuration of a pre-training run: one typed schema, checked before any work.

A file in configs/ sets fields; `--config.field=value` overrides them.
"""

import math
from dataclasses import dataclass, field

from moco_tf import schema
from moco_tf.schema import require
from moco_tf.training.config import Optimizer, check_optimizer


@dataclass
class Data:
    """Where the images come from and how they are augmented."""

    source: str = "synthetic:shapes"  # see moco_tf/data/sources
    data_dir: str = ""  # folder of prepared TFDS data sets; "" is TFDS' default
    recipe: str = "moco:v2"  # see moco_tf/data/recipes, or my_module:name
    recipe_k: str = ""  # of the key view; "" is data.recipe
    image_size_px: int = 224  # side of the views
    num_examples: int = 0  # records of tfrecord:, 0 counts them
    augment_on: str = "auto"  # colors and blur on "host" or "device"; auto: device on GPU, TPU
    jit_compile: bool = True  # colors and blur compiled by XLA, on TPU always
    max_bad_fraction: float = 0.01  # undecodable images tolerated, share in [0, 1]
    shuffle_buffer: int = 10_000  # records, of sources that are streamed
    shard_files: bool = False  # each host reads files of its own; the order depends on the hosts


@dataclass
class Model:
    """Encoder and MoCo. Source: v1 section 3, v2 table 1."""

    mechanism: str = "queue"  # MoCo, or "end_to_end", "memory_bank" (v1 figure 2)
    backbone: str = "resnet:resnet50"  # see moco_tf/backbones/resnet.py
    stem: str = "imagenet"  # or "cifar": 3x3, stride 1, no max-pool
    width: int = 0  # channels of the first stage, 0 is the backbone's own
    head: str = "mlp"  # "linear" (v1) or "mlp" (v2)
    hidden: int = 0  # units in the hidden layer of "mlp"; 0: as many as the backbone has features
    dim: int = 128  # length of the embeddings
    queue_size: int = 65536  # K, negatives; of "end_to_end" the batch gives them
    momentum: float = 0.999  # m, of the key encoder
    temperature: float = 0.2  # of the logits
    symmetric: bool = False  # both views serve as query
    shuffle: bool = True  # shuffle-BN
    bn_group_size: int = 0  # rows that share BN statistics; 0: all rows of a replica


@dataclass
class Monitor:
    """kNN accuracy of the encoder during training. Source: the CIFAR-10 demo."""

    source: str = "auto"  # "BANK,QUERIES" addresses, "auto" (the data's own splits) or "off"
    every_epochs: int = 1  # also before the first and after the last
    every_steps: int = 0  # instead, in runs counted in steps
    features: str = "backbone"  # or "projection"
    neighbours: int = 200  # k
    temperature: float = 0.1
    linear: bool = False  # a linear probe, too
    resize_px: int = 0  # short side before the centre crop; 0 is 8/7 of the image size


@dataclass
class Config:
    """A pre-training run."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    monitor: Monitor = field(default_factory=Monitor)

    seed: int = 0
    batch_size: int = 256  # rows of the global batch, over all replicas
    epochs: int = 200  # length of the run and of the schedule
    steps: int = 0  # length in steps instead, for data without end; 0 counts epochs
    stop_after_steps: int = 0  # end early, with the schedule of the whole run; 0 does not
    gradient_accumulation: int = 1  # micro-batches per step
    mixed_bfloat16: bool = False  # compute in bfloat16; for GPU and TPU
    jit_compile: bool = False  # whole step compiled by XLA, on one GPU; on TPU it always is
    deterministic: bool = False  # bitwise repeatable ops, slower on GPU
    steps_per_call: int = 0  # steps in one call to the device; 0: 1, and log_every_steps on TPU
    max_skipped_steps: int = 0  # steps whose loss or gradient is not finite change nothing
    log_every_steps: int = 20
    checkpoint_every_steps: int = 1000
    keep_checkpoints: int = 3  # at least 2
    profile_steps: tuple = ()  # (first, last) step to profile for TensorBoard


def check(config):
    """Checks every field of a `Config`.

    Raises:
        ValueError: naming the field, what must hold, and the value.
    """
    schema.check_types(config)
    positive = (
        *("batch_size", "gradient_accumulation", "log_every_steps", "checkpoint_every_steps"),
        *("data.image_size_px", "data.shuffle_buffer", "model.dim"),
        *("model.queue_size", "model.temperature", "monitor.neighbours", "monitor.temperature"),
    )
    for name in positive:
        require(config, name, lambda v: v > 0, "positive")
    not_negative = (
        *("seed", "epochs", "steps", "stop_after_steps", "steps_per_call", "data.num_examples"),
        *("max_skipped_steps",),
        *("model.width", "model.hidden", "model.bn_group_size"),
        *("monitor.every_epochs", "monitor.every_steps", "monitor.resize_px"),
    )
    for name in not_negative:
        require(config, name, lambda v: v >= 0, "zero or more")
    for name in ("model.momentum", "data.max_bad_fraction"):
        require(config, name, lambda v: 0 <= v <= 1, "in [0, 1]")
    rule = "at least 2: the last good one is kept until the next was read again"
    require(config, "keep_checkpoints", lambda v: v >= 2, rule)
    choices = {
        "data.augment_on": ("auto", "host", "device"),
        "model.mechanism": ("queue", "end_to_end", "memory_bank"),
        "model.stem": ("imagenet", "cifar"),
        "model.head": ("linear", "mlp"),
        "monitor.features": ("backbone", "projection"),
    }
    for name, valid in choices.items():
        require(config, name, lambda v, valid=valid: v in valid, f"one of {', '.join(valid)}")
    require(
        config,
        "profile_steps",
        lambda v: (
            not v or (len(v) == 2 and all(isinstance(x, int) for x in v) and 0 < v[0] <= v[1])
        ),
        "empty or the first and the last step, such as 10,20",
    )
    check_optimizer(config)
    _check_pairs(config)


def _check_pairs(config):
    size = config.data.image_size_px
    require(
        config, "monitor.resize_px", lambda v: v == 0 or v >= size, f"0, or at least {size} (image)"
    )
    keys = config.batch_size * (2 if config.model.symmetric else 1)
    if config.model.mechanism == "queue":
        require(
            config,
            "model.queue_size",
            lambda v: v >= keys,
            f"at least the new keys of a step, {keys} (the batch, twice it when symmetric)",
        )
    else:
        other = f'with model.mechanism="{config.model.mechanism}"'
        require(config, "model.symmetric", lambda v: not v, f"false {other}")
        require(config, "gradient_accumulation", lambda v: v == 1, f"1 {other}")
    if config.model.mechanism == "memory_bank":
        rule = "false with a memory bank, whose keys share no batch with the queries"
        require(config, "model.shuffle", lambda v: not v, rule)
    require(
        config,
        "batch_size",
        lambda v: v % config.gradient_accumulation == 0,
        f"a multiple of gradient_accumulation={config.gradient_accumulation}",
    )


def chance_loss(config):
    """The loss of an encoder that tells no image from another: ln(K+1), K negatives; in nats."""
    model = config.model
    negatives = config.batch_size - 1 if model.mechanism == "end_to_end" else model.queue_size
    return math.log(negatives + 1) * (2 if model.symmetric else 1)


def replica_layout_errors(config, hosts, replicas):
    """What is wrong with a batch on a topology: a message with what would do, or None."""
    per_step = replicas * config.gradient_accumulation
    unit = per_step * (config.model.bn_group_size or 1)
    if config.batch_size % unit == 0:
        return None
    below = config.batch_size // unit * unit
    valid = [str(v) for v in (below, below + unit) if v > 0]
    return (
        f"`config.batch_size` must be a multiple of {unit}: {replicas} replicas on {hosts} "
        f"host(s) x gradient_accumulation={config.gradient_accumulation} x "
        f"model.bn_group_size={config.model.bn_group_size or 1}. "
        f"Received: batch_size={config.batch_size}. Use {' or '.join(valid)}."
    )
