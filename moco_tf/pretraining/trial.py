"""A few steps of a run, to know its speed and memory before its length is chosen."""

import time
from typing import NamedTuple

import tensorflow as tf

from moco_tf import distribute, strategies
from moco_tf.data import recipes
from moco_tf.data.sources import Source, Stream
from moco_tf.pretraining import build, memory
from moco_tf.pretraining.config import Config
from moco_tf.training import loop

WARM_UP = 3  # steps that compile, and fill and empty what the pipeline has prefetched
TIMED = 5


class Trial(NamedTuple):
    """What a few steps show.

    Attributes:
        image_size_px: side of the views.
        image_seconds: seconds for an image, all of its step.
        row_bytes: memory for a row of a batch of this size, on a CPU.
        fixed_bytes: memory for any batch.
        available: memory of this machine; None on a GPU, and if it is not known.
    """

    image_size_px: int
    image_seconds: float
    row_bytes: float
    fixed_bytes: float
    available: float | None

    def bytes(self, batch: int, image_size_px: int) -> float:
        """About how much memory a step of another batch and image size needs."""
        rows = batch * self.row_bytes
        return self.fixed_bytes + rows * (image_size_px / self.image_size_px) ** 2


def run(config: Config, source: Source | Stream, strategy: tf.distribute.Strategy) -> Trial:
    """Runs a few steps of a config on its own images, and forgets them.

    Args:
        config: config of the run.
        source: its images.
        strategy: its strategy.

    Raises:
        ValueError: if a step clearly needs more memory than this machine has.
        ResourceExhaustedError: if it needs more than the GPU has.
    """
    layout = build.make_layout(config, strategy)
    recipe, recipe_k = recipes.find_both(config.data.recipe, config.data.recipe_k)
    with strategy.scope():
        model = build.make_model(config, source.num_examples)
    machine = None if strategies.accelerators() else memory.machine()
    memory.check(model, config, layout, machine)
    dataset = build.make_dataset(source, recipe, recipe_k, config, layout)
    step = build.make_step(model, recipe, recipe_k, config, strategy)
    call = loop.make_call(step, strategy, 1, timed=False, names=("loss",))
    iterator = distribute.batches(strategy, dataset, 0)
    for _ in range(WARM_UP):
        call(iterator)["loss"].numpy()
    began = time.perf_counter()
    for _ in range(TIMED):
        call(iterator)["loss"].numpy()
    seconds = (time.perf_counter() - began) / TIMED
    return Trial(
        config.data.image_size_px,
        seconds / config.batch_size,
        memory.row_bytes(model, config) / config.gradient_accumulation,
        memory.fixed_bytes(model, layout),
        machine.available if machine else None,
    )
