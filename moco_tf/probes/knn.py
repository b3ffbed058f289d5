"""Weighted nearest-neighbour classification by cosine, exact, in blocks."""

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf.probes.features import unit

# Columns whose maximum stands for them at first: one cache line.
GROUP = 16


def nearest(bank, queries, k, *, block=5000, chunk=65_536, title=None):
    """The k most similar rows of the bank for each query, exactly; of equals, the first.

    Holds a part of the bank and block x chunk similarities, so that the bank may be on disk.

    Args:
        bank: float32 NxC, any length of rows; an array or a memory map.
        queries: float32 MxC, likewise.
        k: at most N are found.
        block: queries at a time, at most.
        chunk: rows of the bank at a time.
        title: of a progress bar; None for none.

    Returns:
        `(cosine, index)`: float32 and int32, M x min(k, N), the most similar first.
    """
    k, m = min(k, len(bank)), len(queries)
    block = -(-m // -(-m // block))
    # Filled up to whole blocks: one shape, one trace.
    padding = np.zeros((-m % block, queries.shape[1]), np.float32)
    blocks = np.concatenate([unit(queries), padding]).reshape(-1, block, queries.shape[1])
    best = [None] * len(blocks)
    for start in tqdm(range(0, len(bank), chunk), title, unit="chunk", disable=title is None):
        part = tf.constant(unit(bank[start : start + chunk]))
        for i, x in enumerate(blocks):
            cosine, index = _top(tf.constant(x), part, min(k, len(part)))
            index = index + start
            if best[i] is not None:
                cosine, index = _merge(best[i], (cosine, index), min(k, start + len(part)))
            best[i] = cosine, index
    cosine, index = (np.concatenate(arrays)[:m] for arrays in zip(*best))
    return cosine, index


@tf.function(autograph=False)
def _top(queries, bank, k):
    """Largest k cosines and their columns, sorted; queries MxC, bank NxC."""
    n, m = bank.shape[0], queries.shape[0]
    cosine = tf.matmul(queries, bank, transpose_b=True)  # MxN
    groups = n // GROUP
    if groups <= 4 * k:
        return tf.math.top_k(cosine, k)
    # The k largest are in the k groups with the largest maxima, or in the rest without a group.
    # Sorting through these is quicker than through all.
    grouped, rest = cosine[:, : groups * GROUP], cosine[:, groups * GROUP :]
    grouped = tf.reshape(grouped, [m, groups, GROUP])
    _, group = tf.math.top_k(tf.reduce_max(grouped, axis=2), k, sorted=False)  # Mxk
    group = tf.sort(group, axis=1)  # so that of equals the first is found
    among = tf.reshape(tf.gather(grouped, group, batch_dims=1), [m, k * GROUP])
    column = tf.reshape(group[:, :, None] * GROUP + tf.range(GROUP), [m, k * GROUP])
    tail = tf.broadcast_to(tf.range(groups * GROUP, n), tf.shape(rest))
    cosine, i = tf.math.top_k(tf.concat([among, rest], axis=1), k)
    return cosine, tf.gather(tf.concat([column, tail], axis=1), i, batch_dims=1)


def _merge(a, b, k):
    cosine, i = tf.math.top_k(tf.concat([a[0], b[0]], axis=1), k)
    return cosine, tf.gather(tf.concat([a[1], b[1]], axis=1), i, batch_dims=1)


def votes(cosine, labels, num_classes, temperature=0.1):
    """Scores of the classes, each neighbour voting for its own with weight exp(cos / t).

    Args:
        cosine: float32 Mxk, similarities of the neighbours, the nearest first.
        labels: int Mxk, their classes, in [0, num_classes).
        num_classes: number of classes.
        temperature: t, > 0.

    Returns:
        float64 M x num_classes.

    Source: the kNN monitor of MoCo's CIFAR-10 demo, after arXiv:1805.01978, section 3.4.
    """
    m = len(cosine)
    cell = np.arange(m)[:, None] * num_classes + labels
    # By the nearest's, which changes no order and cannot overflow.
    weights = np.exp((cosine.astype(np.float64) - cosine[:, :1]) / temperature)
    return np.bincount(cell.ravel(), weights.ravel(), m * num_classes).reshape(m, num_classes)


def predict(bank, bank_labels, queries, *, num_classes, neighbours=200, temperature=0.1):
    """Class of each query: the one with most `votes` of its nearest neighbours; int64 M."""
    cosine, index = nearest(bank, queries, neighbours)
    scores = votes(cosine, np.asarray(bank_labels)[index], num_classes, temperature)
    return scores.argmax(axis=1)


def accuracy(bank, bank_labels, queries, labels, **kwargs):
    """Share in [0, 1] of queries that `predict` classifies right."""
    num_classes = int(max(np.max(bank_labels), np.max(labels))) + 1
    predicted = predict(bank, bank_labels, queries, num_classes=num_classes, **kwargs)
    return float(np.mean(predicted == np.asarray(labels)))
