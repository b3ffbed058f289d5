"""Features of all images of a source, on any strategy."""

import keras
import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.input_pipeline import evaluation_dataset


def backbone_of(encoder):
    """The part of an encoder before its head: images to NxC features."""
    return encoder.layers[1]


def extractor(encoder, kind, strategy):
    """A compiled function from an iterator of distributed images to unit-length features.

    Args:
        encoder: of `backbones.heads.encoder`.
        kind: "backbone" (before the head) or "projection" (after it).
        strategy: of the encoder's variables.
    """
    model = backbone_of(encoder) if kind == "backbone" else encoder

    def features(images):
        x = keras.ops.cast(model(images, training=False), "float32")
        return distribute.all_gather(tf.math.l2_normalize(x, axis=1))

    @tf.function(autograph=False)
    def run(iterator):
        return strategy.experimental_local_results(strategy.run(features, (next(iterator),)))[0]

    return run


def extract(run, source, recipe, strategy, *, image_size_px, resize_px, batch=256):
    """Features of all images of a source, in order, the same on every process.

    Args:
        run: from `extractor`.
        source: `datasets.Source`.
        recipe: whose normalisation to use.
        strategy: of the extractor.
        image_size_px, resize_px: of the centre crop.
        batch: rows over all replicas, about.

    Returns:
        float32 array, num_examples x C.
    """
    per_replica = -(-batch // strategy.num_replicas_in_sync)
    batch = per_replica * strategy.num_replicas_in_sync

    def dataset(context):
        rows = batch // context.num_input_pipelines
        first = context.input_pipeline_id * rows
        data = evaluation_dataset(
            source,
            recipe,
            image_size_px=image_size_px,
            resize_px=resize_px,
            batch=batch,
            rows=slice(first, first + rows),
        )
        if rows > per_replica:
            data = data.unbatch().batch(per_replica, drop_remainder=True)
        return data.repeat()  # without end it keeps its static shapes when it is distributed

    iterator = iter(strategy.distribute_datasets_from_function(dataset))
    batches = [run(iterator).numpy() for _ in range(-(-source.num_examples // batch))]
    return np.concatenate(batches)[: source.num_examples]
