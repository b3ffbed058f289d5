"""kNN classification of features: weighted votes of the nearest by cosine, exact, in blocks."""

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf.probes.features import unit

# Columns that are first compared by their maximum only: one cache line.
GROUP = 16


def nearest(
    bank: np.ndarray,
    queries: np.ndarray,
    k: int,
    *,
    block: int = 5000,
    chunk: int = 65_536,
    title: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k most similar rows of the bank for each query, exactly; of equals, the first.

    Only a part of the bank and block x chunk similarities are in memory, so the bank may be on
    disk.

    Args:
        bank: float32 NxC, an array or a memory map; rows need not have unit length.
        queries: float32 MxC; rows need not have unit length.
        k: number of neighbors; all N if there are fewer.
        block: largest number of queries at a time.
        chunk: rows of the bank at a time.
        title: title of a progress bar; None for no bar.

    Returns:
        `(cosine, index)`: float32 and int32, M x min(k, N), the most similar first.

    Example:
        >>> cosine, index = nearest(np.float32([[1, 0], [0, 1]]), np.float32([[2, 1]]), k=1)
        >>> index
        array([[0]], dtype=int32)
    """
    k = min(k, len(bank))
    m = len(queries)
    block = -(-m // -(-m // block))
    # Queries are filled up to whole blocks, so that there is one shape and one trace.
    padding = np.zeros((-m % block, queries.shape[1]), np.float32)
    blocks = np.concatenate([unit(queries), padding]).reshape(-1, block, queries.shape[1])
    best = [None] * len(blocks)
    for start in tqdm(range(0, len(bank), chunk), title, unit="chunk", disable=title is None):
        rows = tf.constant(unit(bank[start : start + chunk]))
        for i, x in enumerate(blocks):
            cosine, index = _top(tf.constant(x), rows, min(k, len(rows)))
            index = index + start
            if best[i] is not None:
                cosine, index = _merge(best[i], (cosine, index), min(k, start + len(rows)))
            best[i] = cosine, index
    cosine = np.concatenate([cosine for cosine, _ in best])[:m]
    index = np.concatenate([index for _, index in best])[:m]
    return cosine, index


@tf.function(autograph=False)
def _top(queries, bank, k):
    """Largest k cosines and their columns, sorted; queries MxC, bank NxC."""
    n = bank.shape[0]
    m = queries.shape[0]
    cosine = tf.matmul(queries, bank, transpose_b=True)  # MxN
    groups = n // GROUP
    if groups <= 4 * k:
        return tf.math.top_k(cosine, k)
    # The k largest are in the k groups with the largest maxima, or in the rest without a group.
    # Sorting these is faster than sorting all columns.
    grouped = tf.reshape(cosine[:, : groups * GROUP], [m, groups, GROUP])
    rest = cosine[:, groups * GROUP :]
    _, group = tf.math.top_k(tf.reduce_max(grouped, axis=2), k, sorted=False)  # Mxk
    group = tf.sort(group, axis=1)  # so that the first of equals comes first
    candidates = tf.reshape(tf.gather(grouped, group, batch_dims=1), [m, k * GROUP])
    candidate_columns = tf.reshape(group[:, :, None] * GROUP + tf.range(GROUP), [m, k * GROUP])
    rest_columns = tf.broadcast_to(tf.range(groups * GROUP, n), tf.shape(rest))
    cosine, i = tf.math.top_k(tf.concat([candidates, rest], axis=1), k)
    columns = tf.concat([candidate_columns, rest_columns], axis=1)
    return cosine, tf.gather(columns, i, batch_dims=1)


def _merge(a, b, k):
    """The k largest of two results of `_top`."""
    cosine, i = tf.math.top_k(tf.concat([a[0], b[0]], axis=1), k)
    return cosine, tf.gather(tf.concat([a[1], b[1]], axis=1), i, batch_dims=1)


def votes(
    cosine: np.ndarray, labels: np.ndarray, num_classes: int, temperature: float = 0.1
) -> np.ndarray:
    """Scores of the classes: each neighbor votes for its class with weight exp(cos / t).

    Args:
        cosine: float32 Mxk, similarities of the neighbors, the nearest first.
        labels: int Mxk, classes of the neighbors, in [0, num_classes).
        num_classes: number of classes.
        temperature: t, > 0.

    Returns:
        float64 M x num_classes.

    Source: the kNN monitor of MoCo's CIFAR-10 demo, after arXiv:1805.01978, section 3.4.
    """
    m = len(cosine)
    cell = np.arange(m)[:, None] * num_classes + labels
    # Divided by the weight of the nearest, which changes no order and cannot overflow.
    weights = np.exp((cosine.astype(np.float64) - cosine[:, :1]) / temperature)
    return np.bincount(cell.ravel(), weights.ravel(), m * num_classes).reshape(m, num_classes)


def predict(bank, bank_labels, queries, *, num_classes, neighbours=200, temperature=0.1):
    """Predicts the class of each query, the one with most `votes` of its neighbors; int64 M."""
    cosine, index = nearest(bank, queries, neighbours)
    scores = votes(cosine, np.asarray(bank_labels)[index], num_classes, temperature)
    return scores.argmax(axis=1)


def accuracy(bank, bank_labels, queries, labels, **kwargs):
    """Share in [0, 1] of the queries that `predict` classifies right."""
    num_classes = int(max(np.max(bank_labels), np.max(labels))) + 1
    predicted = predict(bank, bank_labels, queries, num_classes=num_classes, **kwargs)
    return float(np.mean(predicted == np.asarray(labels)))
