"""Sizes of a run: how its batch lies on replicas, its steps, and its learning rate."""

import dataclasses

from moco_tf import distribute, optim, schema
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.training.config import Length


@dataclasses.dataclass(frozen=True)
class Plan:
    """Sizes of a run.

    Attributes:
        num_images: in the data.
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


def make_plan(config, num_examples, every: Length | None) -> Plan:
    """The `Plan` of a config on data of `num_examples` images.

    Args:
        config: config with `batch_size`, `length` and `stop_after_steps`.
        num_examples: images in the data.
        every: time between measurements, None for never.

    Raises:
        ValueError: for fewer images than a batch.
    """
    steps_per_epoch = num_examples // config.batch_size
    if not steps_per_epoch:
        raise ValueError(
            "The data must have at least one global batch of images. Received: "
            f"{num_examples} images, batch_size={config.batch_size}. Lower `config.batch_size`."
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
    warmup = o.warmup_steps if length.steps else round(o.warmup_epochs * epoch)
    if o.schedule == "step":
        milestones = o.milestones_steps or [e * epoch for e in o.milestones_epochs]
        return optim.Steps(base, milestones, o.factor, warmup)
    if length.steps:  # no epochs: the rate changes every step
        return optim.Cosine(base, length.steps, 1, warmup_steps=warmup)
    return optim.Cosine(base, length.epochs, epoch, o.first_epoch, warmup)


def make_layout(config, strategy):
    """The layout of a config's `batch_size`, whose replicas also share `test_batch_size`.

    Raises:
        ValueError: if one of the two does not divide.
    """
    replicas = strategy.num_replicas_in_sync
    for name in ("batch_size", "test_batch_size"):
        schema.require(
            config, name, lambda v: v % replicas == 0, f"a multiple of the {replicas} replicas"
        )
    return BatchLayout(config.batch_size, distribute.num_hosts(strategy), replicas)
