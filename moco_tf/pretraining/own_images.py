"""Chooses the sizes of a run: from the number of its images, their sizes, the machine, the time.

Each choice is a field of the config with a reason. Fields that the user has set stay as they are.
"""

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from moco_tf import distribute, schema, strategies
from moco_tf.backbones import precision
from moco_tf.data import sources
from moco_tf.data.sources import Source, Stream
from moco_tf.log import log
from moco_tf.pretraining import trial
from moco_tf.pretraining.config import Config

SAMPLE = 64  # images whose sizes are looked at
SIZES_PX = (32, 48, 64, 96, 128, 160, 192, 224)
ENOUGH_EPOCHS = 200  # more time than these need goes into larger images,
ENOUGH_PAIRS = 100_000  # if it also needs no more than for so many pairs of views
MOST_EPOCHS = 800  # of the longest published run of MoCo v2
LARGE_BATCH = {"CPU": 128, "GPU": 256}
LARGE_QUEUE = {"CPU": 2048, "GPU": 65536}
LONG_STEPS = 50_000  # from which on keys may move as slowly as on ImageNet
MOST_MEASUREMENTS = 10  # of a monitor; each takes some seconds
MARGIN = 1.15  # for what a few steps do not show: evaluations, checkpoints, other programs
MEMORY_SHARE = 0.7
LEAST_GAIN = 1.1  # of bfloat16, from which on it is chosen
FEW_IMAGES = 50_000  # with fewer, a trained encoder is the better start


class Choice(NamedTuple):
    """A value for a field of the config, and why."""

    field: str
    value: object
    reason: str


class Facts(NamedTuple):
    """What is known of the images and the machine before anything is run.

    Attributes:
        images: number of images.
        short_px: median of their short sides.
        per_class: images of an average class; 0 without labels.
        device: "CPU" or "GPU".
    """

    images: int
    short_px: int
    per_class: int
    device: str


def choose(
    config: Config,
    given: set[str],
    minutes: float,
    strategy: tf.distribute.Strategy,
    init: str | None = None,
):
    """Sets the fields of a config that the user has not set, and logs each with its reason.

    A few steps are tried, so that the run takes about `minutes` on this machine.

    Args:
        config: config to change; its data, backbone, recipe and optimizer stay as they are.
        given: names of the fields that the user has set.
        minutes: how long the run may take.
        strategy: strategy of the run.
        init: encoder that the run starts from; without one, a small set is told to look for one.

    Raises:
        ValueError: for several workers, which could choose differently.
    """
    if distribute.num_workers(strategy) > 1:
        raise ValueError(
            "Sizes can be chosen by one process only. Received: several workers. Start once on one "
            "machine, and give its WORKDIR/config.json as fields, or a config, to all."
        )
    data = config.data
    source = sources.open_source(data.source, data.data_dir, data.num_examples, decode=data.decode)
    facts = look_at(source)
    chosen = _apply(config, given, before_trial(facts, config, given))
    log.info("Trying a few steps, to choose what fits %g minutes.", minutes)
    measured = _try(config, given, source, strategy)
    if facts.device == "CPU" and precision.has_amx() and "mixed_bfloat16" not in given:
        choice, measured = _try_bfloat16(config, given, source, strategy, measured)
        chosen += _apply(config, given, [choice])
    chosen += _apply(config, given, after_trial(facts, config, given, measured, minutes))
    last = {choice.field: choice for choice in chosen}.values()
    lines = [f"  --config.{field}={value}  {reason}" for field, value, reason in last]
    log.info(
        "Chosen for %d images of about %d px, on a %s:\n%s",
        facts.images,
        facts.short_px,
        facts.device,
        "\n".join(lines),
    )
    if facts.images < FEW_IMAGES and not init:
        log.info(
            "With fewer than %d images a trained encoder is the better start. If you have one with "
            "this backbone, stop, and add --init=FILE and a new --workdir.",
            FEW_IMAGES,
        )


def _try(config, given, source, strategy):
    """The `trial.Trial` of the batch, or of the largest half of a half of it that a GPU holds."""
    while True:
        try:
            return trial.run(config, source, strategy)
        except tf.errors.ResourceExhaustedError:
            if "batch_size" in given or config.batch_size <= 8:
                raise
        finally:
            keras.backend.clear_session()
        batch = config.batch_size // 2
        log.info("A batch of %d does not fit; trying %d.", config.batch_size, batch)
        _apply(config, given, _batch(batch, config.model.queue_size, "what fits into the GPU"))


def _try_bfloat16(config, given, source, strategy, exact):
    """The choice of a precision, and its `trial.Trial`; `exact` is that of float32."""
    config.mixed_bfloat16 = True
    mixed = _try(config, given, source, strategy)
    gain = exact.image_seconds / mixed.image_seconds
    is_faster = gain > LEAST_GAIN
    reason = f"this CPU has AMX, and a step in bfloat16 is {gain:.2f} times as fast"
    return Choice("mixed_bfloat16", is_faster, reason), mixed if is_faster else exact


def _batch(batch, keys, reason):
    """The choices that go with a batch: BN groups, and a queue of at most `keys` keys."""
    most = max(batch // 4, min(8, batch // 2), 1)
    group = max(rows for rows in range(1, most + 1) if batch % rows == 0)
    return [
        Choice("batch_size", batch, reason),
        Choice(
            "model.bn_group_size",
            group,
            "several BN groups, so that shuffle-BN hides which key is whose",
        ),
        Choice(
            "model.queue_size",
            max(keys // batch, 1) * batch,
            "whole batches, at most half of the images",
        ),
    ]


def look_at(source: Source | Stream) -> Facts:
    """The `Facts` of a source, by some of its images, and of this machine."""
    count = min(SAMPLE, source.num_examples)
    keys = source.keys().take(count)
    if isinstance(source, Source):
        numbers = np.arange(count, dtype=np.int64) * source.num_examples // count
        keys = tf.data.Dataset.from_tensor_slices(numbers)
    sizes = keys.map(lambda key: tf.reduce_min(tf.shape(source.image(key))[:2]))
    sizes = list(sizes.ignore_errors().as_numpy_iterator())
    labels = None if isinstance(source, Stream) else source.labels
    return Facts(
        images=source.num_examples,
        short_px=int(np.median(sizes)) if sizes else SIZES_PX[0],
        per_class=0 if labels is None else source.num_examples // len(np.unique(labels)),
        device="GPU" if strategies.accelerators() else "CPU",
    )


def _apply(config, given, choices):
    """Sets the fields that are not given; returns the choices that were made."""
    made = [choice for choice in choices if choice.field not in given]
    for choice in made:
        schema.override(config, choice.field, choice.value)
    return made


def before_trial(facts: Facts, config: Config, given: set[str]) -> list[Choice]:
    """Batch, BN groups, queue, and the size of the images in the trial."""
    batch = config.batch_size
    if "batch_size" not in given:
        batch = LARGE_BATCH[facts.device]
        while batch > 8 and batch > facts.images // 4:
            batch //= 2
    keys = min(facts.images // 2, LARGE_QUEUE[facts.device])
    side = _sides(facts)[-1] if facts.device == "GPU" else SIZES_PX[0]
    return [
        *_batch(batch, keys, f"at most {LARGE_BATCH[facts.device]}, and a quarter of all"),
        Choice("data.image_size_px", side, "tried first"),
        Choice("monitor.resize_px", None, "8/7 of the image size"),
    ]


def _sides(facts):
    """Sizes of views that do not enlarge the images."""
    return [side for side in SIZES_PX if side <= facts.short_px] or [SIZES_PX[0]]


def after_trial(
    facts: Facts, config: Config, given: set[str], measured: "trial.Trial", minutes: float
) -> list[Choice]:
    """Image size, batch that fits into memory, epochs and what depends on them."""
    room = None if measured.available is None else MEMORY_SHARE * measured.available
    batch, side, choices = config.batch_size, config.data.image_size_px, []
    if "batch_size" not in given:
        while room is not None and batch > 8 and measured.bytes(batch, side) > room:
            batch //= 2
    if batch < config.batch_size:
        fits = f"what fits into {room / 1e9:.1f} GB of memory"
        choices = _batch(batch, config.model.queue_size, fits)
    steps = max(facts.images // batch, 1)
    enough = max(ENOUGH_EPOCHS, ENOUGH_PAIRS / (steps * batch))

    def epochs_at(px):
        seconds = measured.image_seconds * (px / measured.image_size_px) ** 2 * MARGIN
        return 60 * minutes / (seconds * steps * batch)

    if "data.image_size_px" not in given:
        for larger in (px for px in _sides(facts) if px > side):
            fits = room is None or measured.bytes(batch, larger) <= room
            if fits and epochs_at(larger) >= enough:
                side = larger
    epochs = config.epochs
    if not {"epochs", "steps"} & given:
        epochs = int(np.clip(epochs_at(side), 1, MOST_EPOCHS))
    is_long = steps * epochs >= LONG_STEPS
    return [
        *choices,
        Choice(
            "data.image_size_px",
            side,
            f"the largest for which {minutes:g} minutes are {ENOUGH_EPOCHS} epochs and "
            f"{ENOUGH_PAIRS:,} pairs, or the smallest",
        ),
        Choice(
            "epochs",
            epochs,
            f"{minutes:g} minutes at {1 / measured.image_seconds:.0f} images/s of "
            f"{measured.image_size_px} px, at most {MOST_EPOCHS}",
        ),
        Choice(
            "model.momentum",
            0.999 if is_long else 0.99,
            f"for {steps * epochs} steps; .999 is for {LONG_STEPS} and more",
        ),
        Choice(
            "monitor.every_epochs",
            max(math.ceil(epochs / min(MOST_MEASUREMENTS, 2 * minutes)), 1),
            f"at most {MOST_MEASUREMENTS} times in the run, and twice a minute",
        ),
        Choice(
            "monitor.neighbours",
            int(np.clip(facts.per_class * 9 // 10, 1, 200)) if facts.per_class else 200,
            "at most the images of a class",
        ),
        Choice(
            "checkpoint_every_steps", 10_000, "they come by time: at ends of epochs, a minute on"
        ),
    ]
