"""Weighted nearest-neighbour classification of unit-length features."""

import numpy as np
import tensorflow as tf


def predict(
    bank, bank_labels, queries, *, num_classes, neighbours=200, temperature=0.1, block=1024
):
    """Class of each query by its nearest neighbours, each voting with weight exp(cos / t).

    Args:
        bank: float32 NxC, unit rows.
        bank_labels: int N, in [0, num_classes).
        queries: float32 MxC, unit rows.
        num_classes: number of classes.
        neighbours: k; the whole bank if it is smaller.
        temperature: t, > 0.
        block: queries at a time; memory is block x (N + k x num_classes) floats.

    Returns:
        int64 M.

    Source: the kNN monitor of MoCo's CIFAR-10 demo, after arXiv:1805.01978, section 3.4.
    """
    bank, bank_labels = tf.constant(bank), tf.constant(bank_labels, tf.int64)
    k = min(neighbours, len(bank))

    # Filled up to whole blocks: one shape, one trace.
    padding = np.zeros((-len(queries) % block, queries.shape[1]), np.float32)
    blocks = np.concatenate([queries, padding]).reshape(-1, block, queries.shape[1])
    classes = [
        _classify(bank, bank_labels, tf.constant(b), k, num_classes, temperature) for b in blocks
    ]
    return np.concatenate(classes)[: len(queries)]


@tf.function
def _classify(bank, bank_labels, queries, k, num_classes, temperature):
    cosine = tf.matmul(queries, bank, transpose_b=True)  # MxN
    cosine, nearest = tf.math.top_k(cosine, k, sorted=False)  # Mxk
    votes = tf.one_hot(tf.gather(bank_labels, nearest), num_classes)  # Mxkxclasses
    scores = tf.einsum("mk,mkc->mc", tf.exp(cosine / temperature), votes)
    return tf.argmax(scores, axis=1)


def accuracy(bank, bank_labels, queries, labels, **kwargs):
    """Share in [0, 1] of queries that `predict` classifies right."""
    num_classes = int(max(np.max(bank_labels), np.max(labels))) + 1
    predicted = predict(bank, bank_labels, queries, num_classes=num_classes, **kwargs)
    return float(np.mean(predicted == np.asarray(labels)))


def nearest(bank, queries, count):
    """Indices of each query's `count` most similar rows of the bank: int32 M x count."""
    return tf.math.top_k(tf.matmul(queries, bank, transpose_b=True), count).indices.numpy()
