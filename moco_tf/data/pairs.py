"""The input pipeline of pre-training for `model.fit`: two views of each image, in one line."""

import dataclasses

import numpy as np
import tensorflow as tf

from moco_tf.data import image_ops, recipes, sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.data.sources import Source, Stream
from moco_tf.data.two_views import two_view_dataset

EPOCHS = 2**30  # to draw from: each has its own order of the images and its own views


def two_views(
    images: str | np.ndarray | tf.data.Dataset | Source | Stream,
    recipe: str | Recipe = "moco:v2",
    *,
    batch_size: int,
    image_size_px: int,
    recipe_k: str | Recipe | None = None,
    seed: int = 0,
    with_index: bool = False,
    jit_compile: bool = True,
) -> tf.data.Dataset:
    """One epoch of batches `(x_q, x_k)` for `model.fit`; each iteration draws new views.

    Crops, colors, blur and order are those of a train.py run. Undecodable images are replaced by
    others of their batch, and rows that fill no batch are left out of an epoch.

    Args:
        images: address of images, such as "folder:DIR", see `sources.open_source`; or uint8 array
            NxHxWx3; or `tf.data.Dataset` of single images, uint8 HxWx3 or encoded, of which the
            first component or `image` is used and labels are dropped; or a source. A dataset keeps
            its own order, so shuffle it.
        recipe: augmentation, or its address.
        batch_size: rows of the global batch.
        image_size_px: side of the views.
        recipe_k: augmentation of the key view; None for `recipe`.
        seed: seed of order and views.
        with_index: yield dicts of x_q, x_k and index, the images' numbers, for `MemoryBank`.
        jit_compile: compile colors and blur with XLA: the same pixels at several times the speed,
            after a second or two of compilation.

    Returns:
        `tf.data.Dataset` of float32 views, batch_size x S x S x 3, normalized by the recipe.

    Raises:
        ValueError: for images of another type, or fewer than a batch.

    Example:
        >>> views = two_views("synthetic:shapes", batch_size=64, image_size_px=32)
        >>> len(views), next(iter(views))[0].shape
        (64, TensorShape([64, 32, 32, 3]))
    """
    source = _open(images)
    epochs = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).take(1)
    data = two_view_dataset(
        source,
        _find(recipe),
        BatchLayout(batch_size),
        recipe_k=_find(recipe_k or recipe),
        image_size_px=image_size_px,
        seed=seed,
        shuffle=False,  # the step shuffles
        jit_compile=jit_compile,
        with_index=with_index,
        epochs=epochs.map(lambda number: number % EPOCHS),
    )
    names = ("x_q", "x_k", "index") if with_index else ("x_q", "x_k")

    def choose(batch):
        chosen = {name: batch[name] for name in names}
        return chosen if with_index else tuple(chosen.values())

    return data.map(choose).prefetch(tf.data.AUTOTUNE)


def _find(recipe):
    return recipes.find(recipe, "recipe") if isinstance(recipe, str) else recipe


def _open(images):
    if isinstance(images, (Source, Stream)):
        return images
    if isinstance(images, str):
        return sources.open_source(images)
    if isinstance(images, tf.data.Dataset):
        return _of_dataset(images)
    return sources.from_arrays(images)


@dataclasses.dataclass(frozen=True)
class _Records(Stream):
    """Images of a dataset as records in its own order."""

    dataset: tf.data.Dataset | None = None
    encoded: bool = True

    def image(self, key):
        if self.encoded:
            return image_ops.decode(key)
        return tf.ensure_shape(tf.io.parse_tensor(key, tf.uint8), [None, None, 3])

    def name(self, key):
        return tf.constant("")

    def epoch(self, seed, epoch, buffer_size, shard_files=(1, 0)):
        return self.dataset


def _of_dataset(dataset):
    """A `Stream` of the images of a dataset; decoded ones become strings, whose size is free."""
    rule = (
        "The dataset must yield single images, uint8 HxWx3 or encoded, alone or as the first of "
        f"its components. Received: {dataset.element_spec}."
    )
    spec = dataset.element_spec
    key = None
    if isinstance(spec, dict):
        key = "image"
    elif isinstance(spec, tuple):
        key = 0
    try:
        spec = spec if key is None else spec[key]
    except (KeyError, IndexError):
        raise ValueError(rule) from None
    if not isinstance(spec, tf.TensorSpec) or spec.dtype not in (tf.uint8, tf.string):
        raise ValueError(f"{rule} The recipe expects pixels of 0 to 255, before normalization.")
    encoded = spec.dtype == tf.string
    if spec.shape.rank != (0 if encoded else 3) or not (encoded or spec.shape[-1] in (3, None)):
        raise ValueError(f"{rule} Leave `.batch` out, or use `.unbatch()`.")
    total = int(dataset.cardinality())
    rule = "The dataset must know its number of images. Received: "
    if total == tf.data.INFINITE_CARDINALITY:
        raise ValueError(f"{rule}an endless one. Leave `.repeat()` out.")
    if total == tf.data.UNKNOWN_CARDINALITY:
        raise ValueError(
            f"{rule}one of unknown length. Use "
            "`.apply(tf.data.experimental.assert_cardinality(n))`."
        )

    def record(*parts):
        element = parts[0] if len(parts) == 1 else parts
        image = element if key is None else element[key]
        return image if encoded else tf.io.serialize_tensor(image)

    return _Records(total, (), None, dataset=dataset.map(record), encoded=encoded)
