"""Momentum contrast: keys come from a moving average of the query encoder.

Shapes: N rows on this replica, B rows in the global batch, C embedding.

Source: MoCo v1 (arXiv:1911.05722), algorithm 1; moco/builder.py of the official code; the
symmetric loss of its CIFAR-10 demo.
"""

import keras
import tensorflow as tf

from moco_tf import distribute, updates
from moco_tf.contrastive import Contrastive, both_sides, normalize, require, statistics_of


class MomentumContrast(Contrastive):
    """Base class of mechanisms with a key encoder that follows the query encoder.

    A subclass defines `contrast`, which compares queries with keys. `keep` may store the keys of a
    step, `queries` may do more than encode, and `momentum_at` may change the momentum over a run.

    Args:
        encoder, temperature, shuffle, gradient_accumulation, seed: same as in `Contrastive`.
        momentum: m, the share of the key encoder kept at each step, in [0, 1].
        symmetric: each view serves as query once and as key once; the two losses are added.

    Attributes:
        encoder_k: key encoder, which starts as a copy of the query encoder.
    """

    def __init__(
        self,
        encoder,
        momentum=0.999,
        temperature=0.07,
        symmetric=False,
        shuffle=True,
        gradient_accumulation=1,
        seed=0,
        **kwargs,
    ):
        super().__init__(encoder, temperature, shuffle, gradient_accumulation, seed, **kwargs)
        require(0 <= momentum <= 1, "`momentum` must be in [0, 1]", momentum=momentum)
        self.momentum = momentum
        self.symmetric = symmetric
        # The key encoder stays trainable, so that its BatchNorm uses batch statistics, but the
        # optimizer never sees it: it is none of the `trained_networks`.
        self.encoder_k = clone(encoder)
        self.encoder_k.set_weights(encoder.get_weights())

    def contrast(self, q, keys, row):
        """Loss and accuracies of queries, a dict of `METRICS`.

        Args:
            q: float32 NxC, queries of unit length.
            keys: float32 BxC, keys of unit length, of all rows of the batch.
            row: int32, N. The key of q[i] is keys[row[i]].
        """
        raise NotImplementedError(f"{type(self).__name__} must define `contrast`.")

    def keep(self, keys, counts):
        """Stores the keys of a step; by default they are used once.

        Args:
            keys: float32 BxC; 2BxC if symmetric, those of the query views first.
            counts: bool scalar, false if the step was skipped.
        """

    def queries(self, x, training):
        """Queries of unit length, NxC, of views x, NxHxWxc."""
        return normalize(self.encoder_q(x, training=training))

    def momentum_at(self, step):
        """Shares of the key and of the query encoder in the new key encoder: `(m, 1 - m)`.

        Args:
            step: number of steps done before, int or int64 scalar.
        """
        return self.momentum, 1 - self.momentum

    def step(self, batch):
        """One update of both encoders and the keys; arguments and result as in `Contrastive`."""
        x_q, x_k, row, order = self.unpack(batch)

        old_values = updates.values(self.encoder_k.variables)
        self._momentum_update_key_encoder()
        k2 = self._keys(x_k, order)  # BxC
        k1 = self._keys(x_q, row) if self.symmetric else None  # BxC

        # Symmetric: each view is encoded by both encoders. k1 was normalized in another BN group
        # than q2, as k2 was in another than q1, without a further image.
        sides = [(x_q, row), (x_k, order)] if self.symmetric else [(x_q, row)]

        def loss_fn(sides):
            logs = self._contrast(*sides[0], k2)
            return both_sides(logs, self._contrast(*sides[1], k1)) if self.symmetric else logs

        logs, counts = self.minimize(loss_fn, sides)
        updates.restore_unless(counts, self.encoder_k.variables, old_values)
        self.keep(tf.concat([k1, k2], axis=0) if self.symmetric else k2, counts)
        return logs

    def score(self, batch):
        """Loss and accuracies of a batch of any size, as `step` returns them; changes nothing."""
        x_q, x_k = self.aligned(batch)
        logs = self._score(x_q, x_k)
        return both_sides(logs, self._score(x_k, x_q)) if self.symmetric else logs

    def _score(self, x_q, x_k):
        k = normalize(self.encoder_k(x_k, training=False))  # keys: NxC
        return self.contrast(self.queries(x_q, training=False), k, tf.range(tf.shape(k)[0]))

    def _contrast(self, x, row, keys):
        """Loss and accuracies of query views x, NxHxWxc of global rows `row`, against keys, BxC."""
        return self.contrast(self.queries(x, training=True), keys, row)

    def _keys(self, x, order):
        """Keys of all replicas in global order, BxC, for key views x of global rows `order`."""
        shape = x.shape[0], self.encoder_k.output_shape[-1]

        def encode(views):
            x, rows = views
            k = normalize(self.encoder_k(x, training=True))
            return tf.scatter_nd(rows[:, None], k, shape)  # zero but for this micro-batch: NxC

        views = x, tf.range(x.shape[0])
        statistics = statistics_of(self.encoder_k)
        k = self.sum_over_micro_batches(encode, views, tf.zeros(shape), statistics)
        # ReLU turns NaN into 0 on most devices, and here no gradient would tell.
        k += updates.nan_unless_finite([x, *self.encoder_k.trainable_variables])
        return distribute.in_global_order(k, order)

    def _momentum_update_key_encoder(self):
        """Moves the key encoder towards the query encoder; parameters only, never BN statistics."""
        m, rest = self.momentum_at(self.optimizer.iterations.value)
        keys, queries = self.encoder_k.trainable_variables, self.encoder_q.trainable_variables
        for v_k, v_q in zip(keys, queries, strict=True):
            v_k.assign(m * v_k + rest * v_q)


def clone(encoder):
    """An encoder of the same architecture with new weights."""
    # Keras' own function would make a plain functional model of an `Encoder`.
    return encoder.clone() if hasattr(encoder, "clone") else keras.models.clone_model(encoder)
