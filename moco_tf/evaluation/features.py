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
    """A compiled function from an iterator of distributed images and marks to features and marks.

    Features have unit length; marks are 1 for images that could be decoded.

    Args:
        encoder: of `backbones.heads.encoder`.
        kind: "backbone" (before the head) or "projection" (after it).
        strategy: of the encoder's variables.
    """
    model = backbone_of(encoder) if kind == "backbone" else encoder

    def features(images, ok):
        x = keras.ops.cast(model(images, training=False), "float32")
        x, ok = tf.math.l2_normalize(x, axis=1), tf.cast(ok, tf.int32)
        return distribute.all_gather(x), distribute.all_gather(ok)

    @tf.function(autograph=False)
    def run(iterator):
        results = strategy.run(features, next(iterator))
        return tuple(strategy.experimental_local_results(result)[0] for result in results)

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
        float32 array num_examples x C, and bool num_examples: false where an image cannot be
        decoded, whose features mean nothing.
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
    batches = [run(iterator) for _ in range(-(-source.num_examples // batch))]
    features, ok = (np.concatenate(arrays)[: source.num_examples] for arrays in zip(*batches))
    return features, ok.astype(bool)
