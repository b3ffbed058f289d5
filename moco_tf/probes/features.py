"""What a network makes of all images of a source, on any strategy, each image once."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf import distribute
from moco_tf.data.labelled import evaluation_dataset, normalized


class Outputs(NamedTuple):
    """Of N images, in the order of the source.

    Attributes:
        x: list of float32 arrays NxC, one for each output of the network; not normalised.
        labels: int64 N, -1 without labels.
        ok: bool N, false where an image cannot be decoded, whose outputs mean nothing.
    """

    x: list
    labels: np.ndarray
    ok: np.ndarray


def unit(x):
    """Rows of unit length: float32 NxC."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def forward(network, recipe, strategy):
    """A compiled function from an iterator of distributed batches to all replicas' outputs.

    Args:
        network: `keras.Model` from normalised images to one or several NxC outputs.
        recipe: whose normalisation to use.
        strategy: of the network's variables.
    """

    def replica(batch):
        outputs = tf.nest.flatten(network(normalized(recipe, batch["x"]), training=False))
        gathered = [tf.cast(x, tf.float32) for x in outputs]
        gathered += [batch["label"], tf.cast(batch["ok"], tf.int32)]
        return [distribute.all_gather(x) for x in gathered]

    @tf.function(autograph=False)
    def run(iterator):
        results = strategy.run(replica, (next(iterator),))
        return [strategy.experimental_local_results(result)[0] for result in results]

    return run


def extract(run, source, strategy, *, image_size_px, resize_px, batch=256, title=None):
    """Outputs for all images of a source, the same on every process.

    Args:
        run: from `forward`.
        source: `datasets.Source` or `Stream`.
        strategy: of `run`.
        image_size_px, resize_px: of the centre crop.
        batch: rows over all replicas, about.
        title: of a progress bar; None for none.

    Returns:
        `Outputs`.
    """
    per_replica = -(-batch // strategy.num_replicas_in_sync)
    batch = per_replica * strategy.num_replicas_in_sync

    def dataset(context):
        rows = batch // context.num_input_pipelines
        first = context.input_pipeline_id * rows
        data = evaluation_dataset(
            source,
            image_size_px=image_size_px,
            resize_px=resize_px,
            batch=batch,
            rows=slice(first, first + rows),
        )
        if rows > per_replica:
            data = data.unbatch().batch(per_replica, drop_remainder=True)
        return data.repeat()  # without end it keeps its static shapes when it is distributed

    iterator = iter(strategy.distribute_datasets_from_function(dataset))
    total, arrays = source.num_examples, None
    for start in tqdm(range(0, total, batch), title, unit="batch", disable=title is None):
        results = [result.numpy() for result in run(iterator)]
        if arrays is None:  # made once: no second copy of what may fill half the memory
            arrays = [np.empty((total, *r.shape[1:]), r.dtype) for r in results]
        for array, result in zip(arrays, results):
            array[start : start + batch] = result[: total - start]
    *x, labels, ok = arrays
    return Outputs(x, labels, ok.astype(bool))
