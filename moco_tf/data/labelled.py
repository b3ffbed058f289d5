"""Images with labels: random crops to train on, and all images in order to evaluate on.

Both yield uint8 images, which `normalized` prepares on the device.
"""

import math

import numpy as np
import tensorflow as tf

from moco_tf.data import bad_images
from moco_tf.data.image_ops import resize_and_center_crop
from moco_tf.data.sources import Stream
from moco_tf.data.tfdata import endless, examples, join, no_autograph, split


def labelled_dataset(
    source,
    recipe,
    layout,
    *,
    host=0,
    image_size_px=224,
    num_classes=None,
    seed=0,
    start_step=0,
    shuffle_buffer=10_000,
):
    """Batches of random crops and labels for one host, forever, a function of (seed, step).

    Args:
        source: `datasets.Source` or `Stream`, with labels.
        recipe: whose geometry makes the crops.
        layout: `BatchLayout`.
        host: which of the layout's hosts this one is.
        image_size_px: side of the crops.
        num_classes: labels must be below it; None does not check.
        seed: int, of the run.
        start_step: first step to yield.
        shuffle_buffer: records, of a `Stream`.

    Returns:
        `tf.data.Dataset`, one element per replica of this host in turn, n = replica_rows:
            x: uint8 nxSxSx3; label: int64 n.
            ok, name: as of `input_pipeline.labelled_dataset`; a replaced image brings its label.
    """

    @no_autograph
    def crop(key, slot):
        u = recipe.draw(seed, slot, view=0)
        x = recipe.geometry(source.image(key), u, image_size_px)
        return {"x": x, "label": source.label(key)}

    @no_autograph
    def finish(batch):
        batch = bad_images.replace_bad(batch, crop, layout.group_rows)
        if num_classes is not None:
            # Here, on the host: on a GPU the loss of such a label is no number.
            text = f"Labels must be in 0..{num_classes - 1}."
            inside = (batch["label"] >= 0) & (batch["label"] < num_classes)
            with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(inside), [text])]):
                batch["label"] = tf.identity(batch["label"])
        return batch | {"name": bad_images.encode_names(batch["name"])}

    data = examples(source, layout, host, seed, start_step, shuffle_buffer, shard_files=False)
    chunk = data.element_spec["slot"].shape[0]
    data = bad_images.make_samples(data, crop, source.name)
    data = join(data, layout.host_rows // chunk).map(finish)
    local = layout.replicas // layout.hosts
    return endless(split(data, local)).prefetch(2 * local)


def evaluation_dataset(source, *, image_size_px, resize_px, batch, rows=slice(None)):
    """Centre crops of all images in order; the last batch is filled up with the first images.

    Args:
        source: `datasets.Source` or `Stream`.
        image_size_px: side of the crops.
        resize_px: the short side before the crop.
        batch: rows of the global batch.
        rows: slice of each batch to yield, for several hosts; all read all records of a `Stream`.

    Returns:
        `tf.data.Dataset` of dicts: x: uint8 nxSxSx3; label: int64 n, -1 without labels; ok: bool n,
        false where an image cannot be decoded.
    """

    @no_autograph
    def crop(key, slot):
        del slot  # nothing is random
        image = resize_and_center_crop(source.image(key), resize_px, image_size_px)
        return {"x": image, "label": source.label(key)}

    total = -(-source.num_examples // batch) * batch
    keys = source.keys().repeat().take(total).batch(batch, drop_remainder=True)
    n = len(range(batch)[rows])
    chunk = math.gcd(n, 16)
    data = keys.map(lambda key: key[rows]).unbatch().batch(chunk, drop_remainder=True)
    data = data.map(lambda key: {"slot": tf.zeros(chunk, tf.int64), "key": key})
    data = join(bad_images.make_samples(data, crop, source.name), n // chunk)
    return data.map(lambda e: {name: e[name] for name in ("x", "label", "ok")}).prefetch(2)


def crops_of(source, indices, resize_px, size_px):
    """Centre crops of some images by their numbers, ascending; the undecodable are left out.

    Reads a `Stream` up to the last of them.

    Args:
        source: `datasets.Source` or `Stream`.
        indices: int array, ascending.
        resize_px, size_px: of the centre crop.

    Returns:
        uint8 array nxSxSx3.
    """
    wanted = tf.constant(indices, tf.int64)
    if isinstance(source, Stream):
        keys = source.keys().enumerate().take(int(indices[-1]) + 1)
        keys = keys.filter(lambda i, _: tf.reduce_any(i == wanted)).map(lambda _, key: key)
    else:
        keys = tf.data.Dataset.from_tensor_slices(wanted)
    crops = keys.map(lambda k: resize_and_center_crop(source.image(k), resize_px, size_px))
    crops = list(crops.ignore_errors().as_numpy_iterator())
    return np.stack(crops) if crops else np.zeros((0, size_px, size_px, 3), np.uint8)


def normalized(recipe, x):
    """uint8 images to float32, normalised as `recipe` does it."""
    return recipe.normalize(tf.cast(x, tf.float32) / 255)


def fill_of(recipe):
    """The color of padding, that becomes about 0 when it is normalised: uint8, 3."""
    return np.round(255 * np.array(recipe.mean)).astype(np.uint8)
