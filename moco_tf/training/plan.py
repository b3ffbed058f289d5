"""Sizes of a run: how its batch lies on replicas, its steps, and its learning rate."""

import dataclasses

import keras
import tensorflow as tf

from moco_tf import distribute, optim
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.training.config import Length


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of a run.

    Attributes:
        num_images: number of images in the data.
        steps_per_epoch: whole batches in the data.
        total: steps of the schedule.
        stop: step where this run ends, at most `total`.
        monitor_every: steps, 0 for never.
    """

    num_images: int
    steps_per_epoch: int
    total: int
    stop: int
    monitor_every: int


def make_plan(config, num_examples, every: Length | None, bn_group_size: int | None = None) -> Plan:
    """The `Plan` of a config on data of `num_examples` images.

    Args:
        config: config with `batch_size`, `length` and `stop_after_steps`.
        num_examples: images in the data.
        every: time between measurements, None for never.
        bn_group_size: rows that share BN statistics, to name a batch that fits; None: all rows.

    Raises:
        ValueError: for fewer images than a batch.
    """
    steps_per_epoch = num_examples // config.batch_size
    if not steps_per_epoch:
        group = bn_group_size or 1
        fits = max(num_examples // group * group, 1)
        raise ValueError(
            "The data must have at least one global batch of images. Received: "
            f"{num_examples} images, batch_size={config.batch_size}. Lower `--config.batch_size`, "
            f"to at most {fits}."
        )
    total = config.length.total_steps(steps_per_epoch)
    stop = min(config.stop_after_steps or total, total)
    monitor_every = every.total_steps(steps_per_epoch) if every else 0
    return Plan(num_examples, steps_per_epoch, total, stop, monitor_every)


def make_schedule(config, epoch):
    """The learning-rate schedule, linearly scaled with the batch (arXiv:1706.02677).

    Args:
        config: config with `optimizer`, `batch_size` and `length`.
        epoch: steps in one.
    """
    o, length = config.optimizer, config.length
    base = o.learning_rate * config.batch_size / o.reference_batch
    warmup = {
        "warmup_steps": o.warmup_steps if length.steps else round(o.warmup_epochs * epoch),
        "warmup_factor": o.warmup_factor,
    }
    if o.schedule == "step":
        shares = [round(share * length.total_steps(epoch)) for share in o.milestones]
        milestones = o.milestones_steps or [e * epoch for e in o.milestones_epochs] or shares
        return optim.Steps(base, milestones, o.factor, **warmup)
    if o.schedule == "cosine_after_warmup":
        start = warmup["warmup_steps"]
        return optim.Cosine(base, length.total_steps(epoch) - start, 1, start_step=start, **warmup)
    if length.steps:  # no epochs: the rate changes every step
        return optim.Cosine(base, length.steps, 1, **warmup)
    return optim.Cosine(base, length.epochs, epoch, o.first_epoch, **warmup)


def make_optimizer(config, epoch) -> keras.optimizers.Optimizer:
    """The optimizer of a pre-training config.

    Args:
        config: same as in `make_schedule`.
        epoch: steps in one.
    """
    o = config.optimizer
    rate = make_schedule(config, epoch)
    if o.name == "adamw":  # torch's epsilon
        return keras.optimizers.AdamW(rate, weight_decay=o.weight_decay, epsilon=1e-8)
    make = {"sgd": optim.SGD, "lars": optim.LARS}[o.name]
    return make(rate, momentum=o.momentum, weight_decay=o.weight_decay)


def make_layout(
    config,
    strategy: tf.distribute.Strategy,
    *,
    gradient_accumulation: int = 1,
    bn_group_size: int | None = None,
) -> BatchLayout:
    """How a config's `batch_size` lies on the strategy's hosts, replicas and BN groups.

    Args:
        config: config with `batch_size`; its `test_batch_size`, if any, must divide, too.
        strategy: strategy of the run.
        gradient_accumulation: micro-batches per step.
        bn_group_size: rows that share BN statistics; None: all rows of a replica's micro-batch.

    Raises:
        ValueError: if a batch does not divide, with sizes that do.
    """
    hosts = distribute.num_hosts(strategy)
    replicas = distribute.num_replicas(strategy)
    unit = replicas * gradient_accumulation * (bn_group_size or 1)
    factors = f"{replicas} replicas on {hosts} host(s)"
    if gradient_accumulation > 1:
        factors += f" x gradient_accumulation={gradient_accumulation}"
    if bn_group_size:
        factors += f" x bn_group_size={bn_group_size}"
    _require_multiple(config, "batch_size", unit, factors)
    if hasattr(config, "test_batch_size"):
        _require_multiple(config, "test_batch_size", replicas, f"{replicas} replicas")
    micro_batch = config.batch_size // replicas // gradient_accumulation
    return BatchLayout(config.batch_size, hosts, replicas, bn_group_size or micro_batch)


def _require_multiple(config, name, unit, factors):
    size = getattr(config, name)
    if size % unit == 0:
        return
    below = size // unit * unit
    valid = [str(v) for v in (below, below + unit) if v > 0]
    raise ValueError(
        f"`--config.{name}` must be a multiple of {unit}: {factors}. "
        f"Received: {name}={size}. Use {' or '.join(valid)}."
    )
