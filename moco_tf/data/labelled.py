"""Input pipelines of labelled images: random crops for training, center crops for evaluation.

Both yield uint8 images, which `normalized` prepares on the device.
"""

import math

import numpy as np
import tensorflow as tf

from moco_tf.data import bad_images
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.image_ops import resize_and_center_crop
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.data.sources import Source, Stream
from moco_tf.data.tfdata import (
    chunk_rows,
    endless,
    examples,
    join,
    no_autograph,
    split,
    traced_once,
)


def labelled_dataset(
    source: Source | Stream,
    recipe: Recipe,
    layout: BatchLayout,
    *,
    host: int = 0,
    image_size_px: int = 224,
    num_classes: int | None = None,
    seed: int = 0,
    start_step: int = 0,
    shuffle_buffer: int = 10_000,
) -> tf.data.Dataset:
    """Endless batches of random crops and labels for one host, a function of (seed, step).

    Args:
        source: `Source` or `Stream` with labels.
        recipe: `Recipe` whose geometry makes the crops.
        layout: `BatchLayout`.
        host: number of this host, in 0..layout.hosts - 1.
        image_size_px: side of the crops.
        num_classes: labels must be below it; None does not check.
        seed: seed of the run.
        start_step: first step to yield.
        shuffle_buffer: records that a `Stream` holds in memory to shuffle them.

    Returns:
        `tf.data.Dataset` of dicts, one for each replica of this host in turn, n = replica_rows:
            x: uint8 nxSxSx3.
            label: int64 n.
            ok: bool n, false where the row's own image could not be decoded. The next good image
                of the BN group replaces it, with its label.
            name: uint8 n x 120, the name of the row's own image.
    """

    @traced_once
    def make_crop(key, slot):
        u = recipe.draw(seed, slot, view=0)
        x = recipe.geometry(source.image(key), u, image_size_px)
        return {"x": x, "label": source.label(key)}

    @no_autograph
    def finish(batch):
        batch = bad_images.replace_bad(batch, make_crop, layout.group_rows)
        if num_classes is not None:
            # On the host: the loss of such a label on a GPU would be NaN, without an error.
            message = f"Labels must be in 0..{num_classes - 1}."
            in_range = (batch["label"] >= 0) & (batch["label"] < num_classes)
            with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(in_range), [message])]):
                batch["label"] = tf.identity(batch["label"])
        batch["name"] = bad_images.encode_names(batch["name"])
        return batch

    data = examples(
        source,
        layout,
        seed=seed,
        shuffle_buffer=shuffle_buffer,
        host=host,
        start_step=start_step,
    )
    data = bad_images.make_samples(data, make_crop, source.name)
    data = join(data, layout.host_rows // chunk_rows(layout)).map(finish)
    local_replicas = layout.replicas // layout.hosts
    return endless(split(data, local_replicas)).prefetch(2 * local_replicas)


def evaluation_dataset(
    source: Source | Stream,
    *,
    image_size_px: int,
    resize_px: int,
    batch: int,
    rows: slice = slice(None),
    start: int = 0,
) -> tf.data.Dataset:
    """Center crops of all images in order, from `start` on, whose image fills up the last batch.

    Args:
        source: `Source` or `Stream` of images.
        image_size_px: side of the crops.
        resize_px: the short side before the crop.
        batch: rows of the global batch.
        rows: rows of each batch to yield, for several hosts; all hosts read all records of a
            `Stream`.
        start: number of the first image.

    Returns:
        `tf.data.Dataset` of dicts:
            x: uint8 nxSxSx3.
            label: int64 n, -1 without labels.
            ok: bool n, false where an image cannot be decoded.
    """

    @traced_once
    def make_crop(key, slot):
        del slot  # nothing is random
        image = resize_and_center_crop(source.image(key), resize_px, image_size_px)
        return {"x": image, "label": source.label(key)}

    total = -(-(source.num_examples - start) // batch) * batch
    keys = source.keys(start).repeat().take(total).batch(batch, drop_remainder=True)
    n = len(range(batch)[rows])
    chunk = math.gcd(n, 16)
    keys = keys.map(no_autograph(lambda key: key[rows]))
    keys = keys.unbatch().batch(chunk, drop_remainder=True)
    data = keys.map(no_autograph(lambda key: {"slot": tf.zeros(chunk, tf.int64), "key": key}))
    data = join(bad_images.make_samples(data, make_crop, source.name), n // chunk)
    chosen = no_autograph(lambda e: {name: e[name] for name in ("x", "label", "ok")})
    return data.map(chosen).prefetch(2)


def center_crops(
    source: Source | Stream, indices: np.ndarray, resize_px: int, size_px: int
) -> np.ndarray:
    """Center crops of some images by their numbers; undecodable images are left out.

    Reads a `Stream` up to the last of them.

    Args:
        source: `Source` or `Stream` of images.
        indices: int array, numbers of the images, ascending.
        resize_px: the short side before the crop.
        size_px: side of the crops.

    Returns:
        uint8 array nxSxSx3.
    """
    wanted = tf.constant(indices, tf.int64)
    if isinstance(source, Stream):
        keys = source.keys().enumerate().take(int(indices[-1]) + 1)
        keys = keys.filter(no_autograph(lambda i, _: tf.reduce_any(i == wanted)))
        keys = keys.map(no_autograph(lambda _, key: key))
    else:
        keys = tf.data.Dataset.from_tensor_slices(wanted)

    @no_autograph
    def crop(key):
        return resize_and_center_crop(source.image(key), resize_px, size_px)

    crops = list(keys.map(crop).ignore_errors().as_numpy_iterator())
    return np.stack(crops) if crops else np.zeros((0, size_px, size_px, 3), np.uint8)


def normalized(recipe: Recipe, x) -> tf.Tensor:
    """uint8 images to float32, normalized as `recipe` does."""
    return recipe.normalize(tf.cast(x, tf.float32) / 255)


def fill_of(recipe: Recipe) -> np.ndarray:
    """The color of padding, which `recipe` normalizes to about 0: uint8, 3."""
    return np.round(255 * np.array(recipe.mean)).astype(np.uint8)
