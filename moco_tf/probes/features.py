"""Extraction of features: runs a network once on each image of a source, on any strategy."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.backbones.encoder import require_color
from moco_tf.data.labelled import evaluation_dataset, normalized
from moco_tf.log import log


class Outputs(NamedTuple):
    """Outputs of a network for N images, in the order of the source.

    Attributes:
        x: list of float32 arrays NxC, one for each output of the network; not normalized.
        labels: int64 N, -1 without labels.
        ok: bool N, false where an image cannot be decoded; its outputs are meaningless.
    """

    x: list
    labels: np.ndarray
    ok: np.ndarray


def unit(x: np.ndarray) -> np.ndarray:
    """Scales the rows of x, NxC, to unit length."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def warn_if_equal(x: np.ndarray):
    """Warns if the rows of x, NxC, all point the same way, so that no image can be told apart."""
    some = unit(x[:: max(1, len(x) // 100)].astype(np.float64))
    if len(some) < 2 or np.min(some @ some.T) < 1 - 1e-5:
        return
    log.warning(
        "The features of all images are equal (cosine above 0.99999), so they tell no image from "
        "another. The encoder may have been built for other input: it gets normalized images, "
        "with means near 0. A backbone that rescales pixels itself, such as EfficientNet of "
        "keras.applications, expects 0 to 255; put `keras.layers.Rescaling` in front of it, or "
        "build it without."
    )


def forward(network, recipe, strategy):
    """Makes a function that runs a network on whole test sets, see `distribute.make_predict_all`.

    Args:
        network: `keras.Model` from normalized images to one or several NxC outputs.
        recipe: `Recipe` whose normalization to use.
        strategy: strategy of the network's variables.
    """

    require_color(network)

    def predict(batch):
        outputs = tf.nest.flatten(network(normalized(recipe, batch["x"]), training=False))
        features = {f"x{i}": tf.cast(x, tf.float32) for i, x in enumerate(outputs)}
        return features | {"label": batch["label"], "ok": batch["ok"]}

    return distribute.make_predict_all(strategy, predict)


def extract(predict_all, source, *, image_size_px, resize_px, batch=256, title=None):
    """Outputs for all images of a source, the same on every process.

    Args:
        predict_all: function from `forward`.
        source: `Source` or `Stream` of images.
        image_size_px: side of the center crop.
        resize_px: short side before the crop.
        batch: approximate number of rows over all replicas; fewer if there are fewer images.
        title: title of the progress bar; None shows none.

    Returns:
        `Outputs`.
    """

    def dataset(batch_size, rows):
        return evaluation_dataset(
            source,
            image_size_px=image_size_px,
            resize_px=resize_px,
            batch=batch_size,
            rows=rows,
        )

    total = source.num_examples
    arrays = {}
    for first, outputs in predict_all(dataset, total, min(batch, total), title):
        if not arrays:  # made once: no second copy of what may fill half the memory
            arrays = {n: np.empty((total, *x.shape[1:]), x.dtype) for n, x in outputs.items()}
        for name, x in outputs.items():
            arrays[name][first : first + len(x)] = x
    labels = arrays.pop("label")
    ok = arrays.pop("ok")
    return Outputs(list(arrays.values()), labels, ok)
