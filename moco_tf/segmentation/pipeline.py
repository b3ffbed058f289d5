"""Input pipelines of segmentation: random training crops, and whole test images."""

import numpy as np
import tensorflow as tf

from moco_tf.data import bad_images
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.random_key import random_key
from moco_tf.data.tfdata import endless, image_of_slot, no_autograph, split
from moco_tf.segmentation.sources import IGNORED, Pairs


def segmentation_dataset(
    pairs: Pairs,
    layout: BatchLayout,
    *,
    fill: np.ndarray,
    crop_px: int,
    scale: tuple[float, float],
    host: int = 0,
    seed: int = 0,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Endless batches of random training crops for one host, a function of (seed, step).

    An image and its map are scaled by a random factor, cropped at random, padded where they are
    smaller than the crop (the map with `IGNORED`), and flipped with probability .5.

    Args:
        pairs: checked images and label maps.
        layout: layout of the global batch.
        fill: color of the padding, uint8 3.
        crop_px: side of the crops.
        scale: lowest and highest scale factor, drawn uniformly.
        host: number of this host in the layout.
        seed: seed of the run.
        start_step: first step to yield.

    Returns:
        `tf.data.Dataset`, one element per replica of this host in turn, n = replica_rows:
            x: uint8 nxSxSx3; label: int32 nxSxS, classes or `IGNORED`; ok: bool n, true;
            name: uint8 n x 120, see `bad_images.encode_names`.
    """
    first, rows = host * layout.host_rows, layout.host_rows

    @no_autograph
    def make(slot, index):
        u = tf.random.stateless_uniform([4], random_key("augmentation", seed, slot), alg="philox")
        factor = scale[0] + u[0] * (scale[1] - scale[0])
        image, label = resized(pairs.image(index), pairs.label(index), factor)
        image, label = random_crop(image, label, u[1:3], crop_px, fill)
        flip = u[3] < 0.5
        name = bad_images.encode_names(pairs.name(index)[None])[0]
        return {
            "x": tf.where(flip, image[:, ::-1], image),
            "label": tf.where(flip, label[:, ::-1], label),
            "ok": True,
            "name": name,
        }

    @no_autograph
    def find(step):
        slots = step * layout.batch + first + tf.range(rows, dtype=tf.int64)
        # A batch has an image several times if there are fewer images than rows.
        index = image_of_slot(slots, layout.batch, max(pairs.num_examples, layout.batch), seed)
        return slots, index % pairs.num_examples

    data = tf.data.Dataset.range(start_step, tf.int64.max).map(find).unbatch()
    data = data.map(make, tf.data.AUTOTUNE).batch(rows, drop_remainder=True)
    local = layout.replicas // layout.hosts
    return endless(split(data, local)).prefetch(2 * local)


def resized(
    image: tf.Tensor, label: tf.Tensor, factor: tf.Tensor | float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Scales an image, uint8 HxWx3 (bilinear, antialiased), and its map, int32 HxW (nearest)."""
    size = tf.cast(tf.shape(label), tf.float32) * factor
    size = tf.maximum(tf.cast(tf.round(size), tf.int32), 1)
    image = tf.image.resize(image, size, antialias=True)
    label = tf.image.resize(label[..., None], size, method="nearest")[..., 0]
    return tf.cast(tf.round(image), tf.uint8), label


def random_crop(
    image: tf.Tensor, label: tf.Tensor, u: tf.Tensor, size: int, fill: np.ndarray
) -> tuple[tf.Tensor, tf.Tensor]:
    """A crop of size x size px at a random place, padded to the right and below.

    Args:
        image: uint8 HxWx3.
        label: int32 HxW.
        u: 2 uniform numbers in [0, 1), which choose the place.
        size: side of the crop, px.
        fill: color of the image's padding, uint8 3.
    """
    free = tf.cast(tf.maximum(tf.shape(label) - size, 0), tf.float32)
    top, left = tf.unstack(tf.cast(tf.floor(u * (free + 1)), tf.int32))
    image = image[top : top + size, left : left + size]
    label = label[top : top + size, left : left + size]
    return padded(image, label, size, size, fill)


def padded(
    image: tf.Tensor, label: tf.Tensor, height: int, width: int, fill: np.ndarray
) -> tuple[tf.Tensor, tf.Tensor]:
    """Pads an image and its map to the right and below, the map with `IGNORED`."""
    h, w = tf.unstack(tf.shape(label))
    beyond = [[0, height - h], [0, width - w]]
    is_inside = tf.pad(tf.ones_like(label), beyond)[..., None] > 0
    image = tf.where(is_inside, tf.pad(image, [*beyond, [0, 0]]), tf.constant(fill, tf.uint8))
    label = tf.pad(label, beyond, constant_values=IGNORED)
    return tf.ensure_shape(image, [height, width, 3]), tf.ensure_shape(label, [height, width])


def test_dataset(
    pairs: Pairs, batch: int, rows: slice, size: tuple[int, int], fill: np.ndarray
) -> tf.data.Dataset:
    """Whole test images in order, padded to one size; the first images fill up the last batch.

    Args:
        pairs: test images.
        batch: images in the global batch.
        rows: slice of each batch to yield on this host.
        size: height and width of the padded images.
        fill: color of the padding, uint8 3.

    Returns:
        `tf.data.Dataset` of x: uint8 nxHxWx3.
    """

    @no_autograph
    def make(index):
        image = pairs.image(index)
        return padded(image, tf.zeros(tf.shape(image)[:2], tf.int32), *size, fill)[0]

    total = -(-pairs.num_examples // batch) * batch
    data = tf.data.Dataset.range(pairs.num_examples).repeat().take(total)
    data = data.batch(batch, drop_remainder=True).map(lambda index: index[rows]).unbatch()
    data = data.map(make, tf.data.AUTOTUNE)
    return data.batch(len(range(batch)[rows]), drop_remainder=True).prefetch(2)
