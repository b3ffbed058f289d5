"""Sizes of a run: how its batch lies on replicas, its steps, and its learning rate."""

import dataclasses

from moco_tf import distribute, optim, schema
from moco_tf.data.batch_layout import BatchLayout


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


def make_plan(config, num_examples, every_epochs, every_steps=0):
    """The `Plan` of a config on data of `num_examples` images.

    Args:
        config: with `batch_size`, `epochs`, `steps` and `stop_after_steps`.
        num_examples: images in the data.
        every_epochs, every_steps: between measurements; steps if they are given, 0 for never.

    Raises:
        ValueError: for fewer images than a batch.
    """
    steps_per_epoch = num_examples // config.batch_size
    if not steps_per_epoch:
        raise ValueError(
            "The data must have at least one global batch of images. Received: "
            f"{num_examples} images, batch_size={config.batch_size}. Lower `config.batch_size`."
        )
    total = config.steps or config.epochs * steps_per_epoch
    stop = min(config.stop_after_steps or total, total)
    every = every_steps or every_epochs * steps_per_epoch
    return Plan(num_examples, steps_per_epoch, total, stop, every)


def make_schedule(config, epoch):
    """The learning-rate schedule, linearly scaled with the batch (arXiv:1706.02677).

    Args:
        config: with `optimizer`, `batch_size`, `epochs` and `steps`.
        epoch: steps in one.
    """
    o = config.optimizer
    base = o.learning_rate * config.batch_size / o.reference_batch
    warmup = o.warmup_steps if config.steps else round(o.warmup_epochs * epoch)
    if o.schedule == "step":
        milestones = o.milestones_steps or [e * epoch for e in o.milestones_epochs]
        return optim.Steps(base, milestones, o.factor, warmup)
    if config.steps:  # no epochs: the rate changes every step
        return optim.Cosine(base, config.steps, 1, warmup_steps=warmup)
    return optim.Cosine(base, config.epochs, epoch, o.first_epoch, warmup)


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
