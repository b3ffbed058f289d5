"""Linear classifiers on features, many of them trained together, and the linear probe."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf.probes.features import unit


class Classifiers(NamedTuple):
    """S linear classifiers of C features into K classes.

    Attributes:
        weights: float32 SxCxK.
        biases: float32 SxK.
        losses: float32 S, mean training loss of the last epoch; not finite if it diverged.
    """

    weights: np.ndarray
    biases: np.ndarray
    losses: np.ndarray

    def logits(self, number: int, x: np.ndarray, block: int = 4096) -> np.ndarray:
        """Logits of classifier `number`: float32 NxK, of features NxC."""
        return np.concatenate(list(self._blocks(number, x, block)))

    def predict(self, number: int, x: np.ndarray, block: int = 4096) -> tuple[np.ndarray, bool]:
        """Predicted class of each row, int64 N, and whether all logits are finite."""
        classes, is_finite = [], True
        for logits in self._blocks(number, x, block):
            classes.append(logits.argmax(axis=1))
            is_finite = is_finite and bool(np.isfinite(logits).all())
        return np.concatenate(classes), is_finite

    def _blocks(self, number, x, block):
        for i in range(0, len(x), block):
            yield x[i : i + block] @ self.weights[number] + self.biases[number]


def fit(
    x, labels, num_classes, rates, decays, *, momentum, batch_size, epochs, seed, title="linear"
):
    """Trains one classifier for each pair of learning rate and weight decay.

    Uses SGD with momentum and L2 on weights and biases, as in torch, on the mean cross-entropy,
    with a cosine schedule of the learning rate. All classifiers see the same batches.

    Args:
        x: float32 NxC, features; an array or a memory map.
        labels: int64 N, in [0, num_classes).
        num_classes: K.
        rates: S learning rates, one for each classifier.
        decays: S L2 factors, one for each classifier.
        momentum: momentum of SGD.
        batch_size: rows of a batch; the incomplete last batch of an epoch is left out.
        epochs: passes over the features.
        seed: seed of the initial weights, N(0, .01), and of the order.
        title: title of the progress bar; None for no bar.

    Returns:
        `Classifiers`.
    """
    rng = np.random.default_rng(seed)
    n, c = x.shape
    s = len(rates)
    k = num_classes
    batch = min(batch_size, n)
    start = np.tile(rng.normal(0, 0.01, (c, 1, k)), (1, s, 1)).reshape(c, s * k)
    w = tf.Variable(start, dtype=tf.float32)
    b = tf.Variable(tf.zeros(s * k))
    v_w = tf.Variable(tf.zeros_like(w))
    v_b = tf.Variable(tf.zeros_like(b))
    # One value for each column of w; a column belongs to one class of one classifier.
    rate = tf.constant(np.repeat(rates, k), tf.float32)
    decay = tf.constant(np.repeat(decays, k), tf.float32)

    @tf.function(autograph=False)
    def step(x, y, scale):
        logits = tf.reshape(tf.matmul(x, w) + b, [batch, s, k])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.tile(y[:, None], [1, s]), logits)
        error = (
            tf.nn.softmax(logits) - tf.one_hot(y, k)[:, None]
        )  # gradient of the loss by the logits
        error = tf.reshape(error, [batch, s * k]) / batch
        v_w.assign(momentum * v_w + tf.matmul(x, error, transpose_a=True) + decay * w)
        v_b.assign(momentum * v_b + tf.reduce_sum(error, axis=0) + decay * b)
        w.assign_sub(scale * rate * v_w)
        b.assign_sub(scale * rate * v_b)
        return tf.reduce_mean(losses, axis=0)

    steps = n // batch
    for epoch in tqdm(range(epochs), title, unit="epoch", disable=title is None):
        order = rng.permutation(n)
        losses = []
        for i in range(steps):
            rows = np.sort(order[i * batch : (i + 1) * batch])  # a memory map likes them sorted
            progress = (epoch * steps + i) / (epochs * steps)
            scale = tf.constant(0.5 * (1 + math.cos(math.pi * progress)), tf.float32)
            losses.append(step(tf.constant(x[rows]), tf.constant(labels[rows]), scale))
    weights = w.numpy().reshape(c, s, k).transpose(1, 0, 2)
    return Classifiers(weights, b.numpy().reshape(s, k), np.mean(losses, axis=0))


def probe(x, labels, queries, query_labels, *, epochs=20, batch_size=256, seed=0):
    """Linear probe: the share in [0, 1] of queries that a classifier trained on x gets right.

    Features are scaled to unit length, for which one learning rate suits all encoders.

    Args:
        x: float32 NxC, features to train on.
        labels: int N, their classes.
        queries: float32 MxC, features to classify.
        query_labels: int M, their classes.
        epochs: passes over x.
        batch_size: rows of a batch.
        seed: seed of the initial weights and of the order.
    """
    num_classes = int(max(labels.max(), query_labels.max())) + 1
    classifiers = fit(
        unit(x),
        labels,
        num_classes,
        rates=[10.0],
        decays=[0.0],
        momentum=0.9,
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
        title=None,
    )
    predicted = classifiers.logits(0, unit(queries)).argmax(axis=1)
    return float(np.mean(predicted == query_labels))
