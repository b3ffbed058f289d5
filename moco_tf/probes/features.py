"""Extraction of features: runs a network once on each image of a source, on any strategy."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from moco_tf import distribute, workers
from moco_tf.backbones.encoder import require_color
from moco_tf.data.labelled import evaluation_dataset, normalized
from moco_tf.log import log
from moco_tf.probes.feature_files import FeatureFiles


class Outputs(NamedTuple):
    """Outputs of a network for N images, in the order of the source.

    Attributes:
        x: list of float32 arrays NxC, one for each output of the network; not normalized. They
            are in memory, or `feature_files.Rows` on disk.
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


def forward(network, recipe, strategy, make=distribute.make_predict_all):
    """Makes a function that runs a network on whole test sets, see `distribute.make_predict_all`.

    Args:
        network: `keras.Model` from normalized images to one or several NxC outputs.
        recipe: `Recipe` whose normalization to use.
        strategy: strategy of the network's variables.
        make: `distribute.make_predict_all`, or `make_predict_own` for `extract_to`.
    """

    require_color(network)

    def predict(batch):
        outputs = tf.nest.flatten(network(normalized(recipe, batch["x"]), training=False))
        features = {f"x{i}": tf.cast(x, tf.float32) for i, x in enumerate(outputs)}
        return features | {"label": batch["label"], "ok": batch["ok"]}

    return make(strategy, predict)


def make_extract(predict_all, source, *, image_size_px, resize_px, batch=256):
    """Makes a function that extracts outputs for all images of a source, again and again.

    The input pipeline is built at the first call only, which takes as long as some hundred images.

    Args:
        predict_all: function from `forward`.
        source: `Source` or `Stream` of images.
        image_size_px: side of the center crop.
        resize_px: short side before the crop.
        batch: approximate number of rows over all replicas; fewer if there are fewer images.

    Returns:
        Function from the title of a progress bar (None shows none) to `Outputs`, the same on every
        process.
    """
    total = source.num_examples

    def dataset(batch_size, rows):
        return evaluation_dataset(
            source,
            image_size_px=image_size_px,
            resize_px=resize_px,
            batch=batch_size,
            rows=rows,
        )

    def extract_all(title=None):
        arrays = {}
        for first, outputs in predict_all(dataset, total, min(batch, total), title):
            if not arrays:  # made once: no second copy of what may fill half the memory
                arrays = {n: np.empty((total, *x.shape[1:]), x.dtype) for n, x in outputs.items()}
            for name, x in outputs.items():
                arrays[name][first : first + len(x)] = x
        labels = arrays.pop("label")
        ok = arrays.pop("ok")
        return Outputs(list(arrays.values()), labels, ok)

    return extract_all


def extract(predict_all, source, *, title=None, **options):
    """Outputs for all images of a source, once: `Outputs`; arguments as for `make_extract`."""
    return make_extract(predict_all, source, **options)(title)


def extract_to(
    files, predict_own, source, strategy, *, image_size_px, resize_px, batch, title=None
):
    """Writes the outputs for all images of a source to disk, in constant memory.

    Goes on where an earlier extraction was stopped. Several processes write files of their own.

    Args:
        files: `FeatureFiles` of the images, made with the same `batch`.
        predict_own: function from `forward`, of `distribute.make_predict_own`.
        source: `Source` or `Stream` of images.
        strategy: strategy of the network.
        image_size_px: side of the center crop.
        resize_px: short side before the crop.
        batch: number of rows that a process computes at a time, see `rows_of_a_process`.
        title: title of the progress bar; None shows none.
    """
    missing = files.missing()
    if 0 < len(missing) < files.num_files:
        done = files.num_files - len(missing)
        log.info("%d of %d files of features are there already.", done, files.num_files)
    workers.wait_for_workers(strategy)  # all have looked before any writes
    parts = np.array_split(np.array(missing, int), distribute.num_workers(strategy))
    own = parts[workers.worker_number(strategy)]
    for run in np.split(own, np.flatnonzero(np.diff(own) != 1) + 1):
        if len(run):
            _extract_run(
                files,
                predict_own,
                source,
                run.tolist(),
                image_size_px=image_size_px,
                resize_px=resize_px,
                batch=batch,
                title=title,
            )
    workers.wait_for_workers(strategy)


def _extract_run(files, predict_own, source, numbers, *, batch, title, **sizes):
    """Writes the files of successive numbers."""
    start, stop = files.bounds(numbers[0])[0], files.bounds(numbers[-1])[1]

    def dataset(batch_size, rows):
        return evaluation_dataset(source, **sizes, batch=batch_size, rows=rows, start=start)

    blocks, remaining = [], iter(numbers)
    number = next(remaining)
    for first, outputs in predict_own(dataset, stop - start, batch, title):
        blocks.append(outputs)
        end = start + first + len(outputs["ok"])
        if end == files.bounds(number)[1]:
            files.write(number, {n: np.concatenate([b[n] for b in blocks]) for n in outputs})
            blocks, number = [], next(remaining, None)


def rows_of_a_process(batch: int, num_examples: int, strategy: tf.distribute.Strategy) -> int:
    """Rows that a process computes at a time, of `batch` over all replicas; a multiple of its own.

    Args:
        batch: approximate number of rows over all replicas.
        num_examples: number of images; there are no more rows than needed for them.
        strategy: strategy of the network.
    """
    processes = distribute.num_workers(strategy)
    replicas = distribute.num_replicas(strategy) // processes
    return -(-min(batch // processes or 1, num_examples) // replicas) * replicas


def read_from(files: FeatureFiles) -> Outputs:
    """The outputs that `extract_to` wrote; features stay on disk, labels and ok are read."""
    labels, ok = files.rows_of("label")[:], files.rows_of("ok")[:]
    return Outputs([files.rows_of(name) for name in files.names()], labels, ok)
