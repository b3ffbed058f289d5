"""Input pipelines of a detector: training images with their objects, and test images."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from moco_tf.data import bad_images, image_ops
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.random_key import random_key
from moco_tf.data.tfdata import endless, no_autograph
from moco_tf.detection.data import image_order, scaling
from moco_tf.detection.data.annotations import Annotations, paths
from moco_tf.detection.data.object_tensors import ObjectTensors
from moco_tf.log import log

FLIP, SIZE, SUBSET = range(3)  # draws for an image; detector.py has others


def detection_dataset(
    annotations: Annotations,
    layout: BatchLayout,
    *,
    fill: Sequence[int],
    short_px: Sequence[int],
    longest_px: int = 1333,
    pad_px: int = 32,
    square_px: int | None = None,
    max_objects: int | None = None,
    repeat_threshold: float = 0.0,
    host: int = 0,
    seed: int = 0,
    start_step: int = 0,
    symmetry: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Endless training batches for one host, a function of (seed, step).

    Images are scaled to a short side that is drawn from a list, and flipped with probability .5.
    The short side is drawn once for each global batch, so that little of it is padding; detectron2
    draws for each image. A global batch has only upright or only lying images, all padded to one
    size. Each epoch of an orientation is a new permutation. Each image is seen equally often, or as
    often as its rarest class needs, see image_order.py.

    Args:
        annotations: `Annotations`, opened for training. Its masks, keypoints and DensePose
            annotations are part of the batches.
        layout: `BatchLayout`.
        fill: color of the padding, uint8 3.
        short_px: short sides to draw from.
        longest_px: long side at most; it can make the short side less than drawn.
        pad_px: padded sizes are multiples of it, so that they are few.
        square_px: side of the square that all images are padded to, at least longest_px: one static
            shape, as a TPU needs it. None pads to multiples of pad_px.
        max_objects: G; if an image has more objects, a random subset is taken, and the others
            count as background. None: room for all, G is the number in the fullest image.
        repeat_threshold: see `image_order.repeat_factors`; 0 repeats no image.
        host: number of this host in the layout.
        seed: seed of the run.
        start_step: first step to yield.
        symmetry: see `densepose.mirrored`; without it, images with DensePose are not flipped.

    Returns:
        `tf.data.Dataset`, one element for each replica of this host in turn, n = replica_rows:
            x: uint8 nxHxWx3.
            size: int32 nx2, height and width of the image within x.
            boxes: float32 nxGx4, px.
            label: int32 nxG, class, `EMPTY` or `CROWD`.
            mask: uint8 n x G x 112 x 112, within the box; 0 in an empty row or a crowd.
            keypoints: float32 nxGxJx3, x, y, visibility.
            densepose_points, densepose_masks: see `densepose.unpacked`, G persons each.
            step: int64 n.
            ok: bool n, true.
            name: uint8 n x 120.
    """
    _require_square(square_px, longest_px)
    max_objects = max_objects or int(annotations.counts.max())
    crowded = int(np.sum(annotations.counts > max_objects))
    if crowded:
        log.info(
            "%d images have more than %d objects; each time, a random subset of them is used, and "
            "the others count as background",
            crowded,
            max_objects,
        )
    factors = image_order.repeat_factors(annotations, repeat_threshold)
    images_of_step = image_order.image_order(annotations.sizes, factors, layout.batch, seed)
    objects = ObjectTensors(annotations, max_objects, symmetry)
    path_of = paths(annotations)
    with tf.device("CPU"):
        sizes = tf.constant(annotations.sizes)
    rows = slice(host * layout.host_rows, (host + 1) * layout.host_rows)

    @no_autograph
    def rows_of_step(step):
        """This host's rows of a step: the image, its size after scaling, the batch's largest."""
        index = images_of_step(step)
        slots = step * layout.batch + tf.range(layout.batch, dtype=tf.int64)
        key = random_key("augmentation", seed, slots[0], SIZE)
        draw = tf.random.stateless_uniform([], key, alg="philox")
        drawn = tf.gather(list(short_px), tf.cast(draw * len(short_px), tf.int32))
        size = scaling.resized(tf.gather(sizes, index), drawn, longest_px)
        return {
            "index": index[rows],
            "slot": slots[rows],
            "step": tf.fill([layout.host_rows], step),
            "size": size[rows],
            "largest": tf.tile(tf.reduce_max(size, axis=0)[None], [layout.host_rows, 1]),
        }

    @no_autograph
    def example(row):
        """The image and the objects of a row."""
        path, size = path_of(row["index"]), row["size"]
        flip_key = random_key("augmentation", seed, row["slot"], FLIP)
        subset_key = random_key("augmentation", seed, row["slot"], SUBSET)
        image = image_ops.decode(tf.io.read_file(path))
        factor = tf.cast(size, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
        image = scaling.scaled(image, size)
        in_image = objects.scaled(row["index"], factor[::-1], subset_key)
        if objects.can_be_mirrored:
            width = tf.cast(size[1], tf.float32)
            image, in_image = tf.cond(
                tf.random.stateless_uniform([], flip_key, alg="philox") < 0.5,
                lambda: (tf.reverse(image, [1]), objects.mirrored(in_image, width)),
                lambda: (image, in_image),
            )
        padded_size = scaling.padded_size(row["largest"], pad_px, square_px)
        return {
            "x": scaling.padded(image, padded_size, fill, square_px),
            "size": size,
            **objects.filled_up(in_image),
            "step": row["step"],
            "ok": True,
            "name": bad_images.encode_names(path[None])[0],
        }

    data = tf.data.Dataset.range(start_step, tf.int64.max).map(rows_of_step).unbatch()
    data = data.map(example, tf.data.AUTOTUNE).batch(layout.replica_rows, drop_remainder=True)
    return endless(data).prefetch(2 * layout.replicas // layout.hosts)


def test_dataset(
    annotations: Annotations,
    batch: int,
    rows: slice,
    *,
    fill: Sequence[int],
    short_px: int = 800,
    longest_px: int = 1333,
    pad_px: int = 32,
    square_px: int | None = None,
) -> tf.data.Dataset:
    """Whole test images, each once, batched with others of similar shape.

    The last batch is filled up with the last image again.

    Args:
        annotations: `Annotations`.
        batch: images of the global batch.
        rows: slice of each global batch to yield, for several hosts.
        fill: color of the padding, uint8 3.
        short_px: short side to scale to.
        longest_px: long side at most.
        pad_px: padded sizes are multiples of it.
        square_px: side of the square that all images are padded to; None for no square.

    Returns:
        `tf.data.Dataset`:
            x: uint8 nxHxWx3.
            size: int32 nx2, height and width of the image within x.
            index: int64 n, the image's number; -1 for a repeated image.
            factor: float32 n x 2, of x and of y: px of `x` in a px of the image.
    """
    _require_square(square_px, longest_px)
    sizes = scaling.resized(annotations.sizes, short_px, longest_px).numpy()
    order = np.lexsort(sizes.T)
    missing = -len(order) % batch
    order = np.concatenate([order, np.full(missing, order[-1])])
    largest = sizes[order].reshape(-1, batch, 2).max(axis=1).repeat(batch, axis=0)
    number = np.where(np.arange(len(order)) < annotations.num_examples, order, -1)
    path_of = paths(annotations)

    @no_autograph
    def example(row):
        image = image_ops.decode(tf.io.read_file(path_of(row["image"])))
        factor = tf.cast(row["size"], tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
        image = scaling.scaled(image, row["size"])
        padded_size = scaling.padded_size(row["largest"], pad_px, square_px)
        return {
            "x": scaling.padded(image, padded_size, fill, square_px),
            "size": row["size"],
            "index": row["index"],
            "factor": factor[::-1],
        }

    places = np.arange(len(order)).reshape(-1, batch)[:, rows].ravel()
    columns = {
        "image": order[places],
        "index": number[places],
        "size": sizes[order][places],
        "largest": largest[places],
    }
    data = tf.data.Dataset.from_tensor_slices(columns).map(example, tf.data.AUTOTUNE)
    return data.batch(len(range(batch)[rows]), drop_remainder=True).prefetch(2)


def _require_square(square_px, longest_px):
    if square_px and square_px < longest_px:
        raise ValueError(
            "`square_px` must be None, or at least `longest_px`. Received: "
            f"{square_px}, {longest_px}. Lower `longest_px`."
        )
