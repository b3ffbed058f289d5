"""Scaled images with their objects to train on, and whole images to test on."""

import numpy as np
import tensorflow as tf

from moco_tf.data import bad_images, image_ops
from moco_tf.data.random_key import random_key
from moco_tf.data.tfdata import endless, plain
from moco_tf.detection.data import densepose, image_order, scaling
from moco_tf.detection.data.annotations import paths
from moco_tf.detection.data.masks import SIDE
from moco_tf.detection.data.objects import CROWD, EMPTY
from moco_tf.log import log

FLIP, SIZE, SUBSET = range(3)  # draws for a slot; detector.py has others


def detection_dataset(
    annotations,
    layout,
    *,
    fill,
    short_px,
    longest_px=1333,
    pad_px=32,
    square_px=0,
    max_objects=100,
    repeat_threshold=0.0,
    host=0,
    seed=0,
    start_step=0,
    symmetry=None,
):
    """Batches for one host, forever, a function of (seed, step).

    Images are scaled so that their short side is drawn from a list (for each global batch, so that
    little of it is padding; detectron2 draws for each image), and flipped with probability .5. A
    global batch has upright or lying images only; all of it is padded to one size. Each epoch of
    either kind is a new permutation, and each image is seen equally often, or as often as its
    rarest class asks for: see image_order.py.

    Args:
        annotations: `records.Annotations`, for training; its masks, keypoints and DensePose's
            annotations are yielded too.
        layout: `BatchLayout`.
        fill: uint8 color of the padding, 3.
        short_px: list of short sides.
        longest_px: long sides are at most this, then short ones are less than drawn.
        pad_px: padded sizes are multiples of it, so that they are few.
        square_px: side to which all images are padded, at least longest_px: one static shape, for
            TPU; 0 does not.
        max_objects: G; of more objects in an image a random subset is taken.
        repeat_threshold: of `image_order.repeat_factors`; 0 repeats no image.
        host: which of the layout's hosts this one is.
        seed: int, of the run.
        start_step: first step to yield.
        symmetry: as of `densepose.mirrored`; images with DensePose are not flipped without it.

    Returns:
        `tf.data.Dataset`, one element per replica of this host in turn, n = replica_rows:
            x: uint8 nxHxWx3; size: int32 nx2, height and width of the image within it.
            boxes: float32 nxGx4, px; label: int32 nxG, class, `EMPTY` or `CROWD`.
            mask: uint8 n x G x 112 x 112, within the box; of an empty slot or a crowd it is 0.
            keypoints: float32 nxGxJx3, x, y, visibility.
            densepose_points, densepose_masks: as of `densepose.unpacked`, G persons each.
            step: int64 n; ok: bool n, true; name: uint8 n x 120.
    """
    _require_square(square_px, longest_px)
    crowded = int(np.sum(annotations.counts > max_objects))
    if crowded:
        log.info(
            "%d images have more than %d objects; each time, a random subset of them is used",
            crowded,
            max_objects,
        )
    factors = image_order.repeat_factors(annotations, repeat_threshold)
    images_of = image_order.image_order(annotations.sizes, factors, layout.batch, seed)
    find = _rows_of_step(annotations, images_of, layout, host, seed, short_px, longest_px)
    data = tf.data.Dataset.range(start_step, tf.int64.max).map(find).unbatch()
    make = _example(annotations, fill, pad_px, square_px, max_objects, seed, symmetry)
    data = data.map(make, tf.data.AUTOTUNE).batch(layout.replica_rows, drop_remainder=True)
    return endless(data).prefetch(2 * layout.replicas // layout.hosts)


def _rows_of_step(annotations, images_of, layout, host, seed, short_px, longest_px):
    """Graph function from a step to this host's rows: which image, and its size, all of it."""
    with tf.device("CPU"):
        sizes = tf.constant(annotations.sizes)
    rows = slice(host * layout.host_rows, (host + 1) * layout.host_rows)

    @plain
    def find(step):
        index = images_of(step)
        slots = step * layout.batch + tf.range(layout.batch, dtype=tf.int64)
        draw = tf.random.stateless_uniform(
            [], random_key("augmentation", seed, slots[0], SIZE), alg="philox"
        )
        drawn = tf.cast(draw * len(short_px), tf.int32)
        size = scaling.resized(
            tf.gather(sizes, index), tf.gather(list(short_px), drawn), longest_px
        )
        return {
            "index": index[rows],
            "slot": slots[rows],
            "step": tf.fill([layout.host_rows], step),
            "size": size[rows],
            "largest": tf.tile(tf.reduce_max(size, axis=0)[None], [layout.host_rows, 1]),
        }

    return find


def _example(annotations, fill, pad_px, square_px, max_objects, seed, symmetry):
    """Graph function from a row of `_rows_of_step` to an example."""
    path, objects = paths(annotations), _Objects(annotations, max_objects, symmetry)

    @plain
    def make(row):
        index, size = row["index"], row["size"]
        key = random_key("augmentation", seed, row["slot"], FLIP)
        flip = tf.random.stateless_uniform([], key, alg="philox") < 0.5
        image = image_ops.decode(tf.io.read_file(path(index)))
        factor = tf.cast(size, tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
        image = scaling.scaled(image, size)
        found = objects.scaled(
            index, factor[::-1], random_key("augmentation", seed, row["slot"], SUBSET)
        )
        if objects.can_be_mirrored:
            width = tf.cast(size[1], tf.float32)
            image, found = tf.cond(
                flip,
                lambda: (tf.reverse(image, [1]), objects.mirrored(found, width)),
                lambda: (image, found),
            )
        return {
            "x": scaling.padded(
                image, scaling.padded_size(row["largest"], pad_px, square_px), fill, square_px
            ),
            "size": size,
            **objects.filled_up(found),
            "step": row["step"],
            "ok": True,
            "name": bad_images.encode_names(path(index)[None])[0],
        }

    return make


class _Objects:
    """The objects of an image, as tensors: at most `max_objects`."""

    def __init__(self, annotations, max_objects, symmetry):
        self.max_objects = max_objects
        self.can_be_mirrored = annotations.densepose_points is None or symmetry is not None
        with tf.device("CPU"):
            self.offsets = tf.constant(annotations.offsets)
            self.columns = {
                "boxes": tf.constant(annotations.boxes),
                "label": tf.constant(np.where(annotations.crowd, CROWD, annotations.labels)),
            }
            if annotations.masks is not None:
                self.columns["mask"] = tf.constant(annotations.masks)
            if annotations.keypoints is not None:
                self.columns["keypoints"] = tf.constant(annotations.keypoints)
                self.twins = tf.constant(annotations.mirrored_keypoints)
            for name in ("densepose_points", "densepose_masks"):
                if getattr(annotations, name) is not None:
                    self.columns[name] = tf.constant(getattr(annotations, name))
            self.symmetry = None if symmetry is None else tf.constant(symmetry)

    def scaled(self, index, factor, key):
        """Those of an image: a random subset if they are too many. `factor`: of x and of y."""
        start, stop = self.offsets[index], self.offsets[index + 1]
        order = tf.argsort(tf.random.stateless_uniform([stop - start], key, alg="philox"))
        chosen = start + tf.cast(tf.sort(order[: self.max_objects]), tf.int64)
        found = {name: tf.gather(column, chosen) for name, column in self.columns.items()}
        found["boxes"] *= tf.tile(factor, [2])
        if "mask" in found:
            found["mask"] = unpacked(found["mask"])
        if "keypoints" in found:
            found["keypoints"] *= tf.concat([factor, [1.0]], axis=0)
        if "densepose_points" in found:
            packed = found["densepose_points"], found["densepose_masks"]
            found |= densepose.unpacked(*packed, factor)
        return found

    def mirrored(self, found, width):
        """The same in the mirrored image of this width."""
        x1, y1, x2, y2 = tf.unstack(found["boxes"], axis=-1)
        mirrored = {**found, "boxes": tf.stack([width - x2, y1, width - x1, y2], axis=-1)}
        if "mask" in found:
            mirrored["mask"] = tf.reverse(found["mask"], [2])
        if "keypoints" in found:
            x, y, seen = tf.unstack(tf.gather(found["keypoints"], self.twins, axis=1), axis=-1)
            x = tf.where(seen > 0, width - x, 0.0)
            mirrored["keypoints"] = tf.stack([x, y, seen], axis=-1)
        if "densepose_points" in found:
            own = found["densepose_points"], found["densepose_masks"]
            mirrored |= densepose.mirrored(*own, width, self.symmetry)
        return mirrored

    def filled_up(self, found):
        """The same with rows for no object, of static shapes."""

        def fill_up(x, value):
            beyond = [[0, self.max_objects - tf.shape(x)[0]]] + [[0, 0]] * (x.shape.rank - 1)
            x = tf.pad(x, beyond, constant_values=value)
            return tf.ensure_shape(x, [self.max_objects, *x.shape[1:]])

        return {name: fill_up(x, EMPTY if name == "label" else 0) for name, x in found.items()}


def unpacked(masks):
    """What `masks.pack` made, string n, to uint8 n x 112 x 112."""
    raw = tf.io.decode_compressed(masks, "ZLIB")  # of an empty string it is empty
    packed = tf.io.decode_raw(raw, tf.uint8, fixed_length=SIDE * SIDE // 8)
    bits = tf.bitwise.right_shift(
        packed[..., None], tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
    )
    return tf.reshape(tf.bitwise.bitwise_and(bits, 1), [-1, SIDE, SIDE])


def test_dataset(
    annotations, batch, rows, *, fill, short_px=800, longest_px=1333, pad_px=32, square_px=0
):
    """Whole images, those of like shape together; the last batch is filled up with images again.

    Args:
        annotations: `records.Annotations`.
        batch: images of the global batch.
        rows: slice of each batch to yield, for several hosts.
        fill, longest_px, pad_px, square_px: as of `detection_dataset`.
        short_px: the short side.

    Returns:
        `tf.data.Dataset`, each image once:
            x: uint8 nxHxWx3; size: int32 nx2, as of `detection_dataset`.
            index: int64 n, the image's number; -1 for what fills up.
            factor: float32 n x 2, of x and of y: px of `x` in a px of the image.
    """
    _require_square(square_px, longest_px)
    sizes = scaling.resized(annotations.sizes, short_px, longest_px).numpy()
    order = np.lexsort(sizes.T)
    beyond = -len(order) % batch
    order = np.concatenate([order, np.full(beyond, order[-1])])
    largest = sizes[order].reshape(-1, batch, 2).max(axis=1).repeat(batch, axis=0)
    number = np.where(np.arange(len(order)) < annotations.num_examples, order, -1)
    path = paths(annotations)

    @plain
    def make(row):
        image = image_ops.decode(tf.io.read_file(path(row["image"])))
        factor = tf.cast(row["size"], tf.float32) / tf.cast(tf.shape(image)[:2], tf.float32)
        image = scaling.scaled(image, row["size"])
        return {
            "x": scaling.padded(
                image, scaling.padded_size(row["largest"], pad_px, square_px), fill, square_px
            ),
            "size": row["size"],
            "index": row["index"],
            "factor": factor[::-1],
        }

    slots = np.arange(len(order)).reshape(-1, batch)[:, rows].ravel()
    columns = {"image": order, "index": number, "size": sizes[order], "largest": largest}
    columns = {name: column[slots] for name, column in columns.items()}
    data = tf.data.Dataset.from_tensor_slices(columns).map(make, tf.data.AUTOTUNE)
    return data.batch(len(range(batch)[rows]), drop_remainder=True).prefetch(2)


def _require_square(square_px, longest_px):
    if square_px and square_px < longest_px:
        raise ValueError(
            "`square_px` must be 0, or at least `longest_px`. Received: "
            f"{square_px}, {longest_px}. Lower `longest_px`."
        )
