"""Momentum Contrast: the algorithm, and nothing but the algorithm.

Shapes: N rows on this replica, B rows in the global batch, C embedding, K queue.

Source: MoCo v1 (arXiv:1911.05722), algorithm 1; moco/builder.py of the official code; the
symmetric loss of its CIFAR-10 demo. The loss is `contrastive.info_nce`.
"""

import keras
import tensorflow as tf

from moco_tf import distribute, updates
from moco_tf.contrastive import (
    Contrastive,
    both_sides,
    clone,
    info_nce,
    normalize,
    random_keys,
    require,
    statistics_of,
)


@keras.saving.register_keras_serializable("moco_tf")
class MoCo(Contrastive):
    """Trains `encoder` to match two views of an image against a queue of other images' keys.

    Use it like any Keras model. The dataset yields `(x_q, x_k)`, two batches of views of the same
    images (NxHxWxc, batched with drop_remainder=True); `step` also takes a dict:

        model = MoCo(encoder, queue_size=4096)
        model.compile(moco_tf.SGD(0.03, weight_decay=1e-4))
        model.fit(dataset, epochs=200)

    Args:
        encoder: functional or built Sequential `keras.Model` from images to NxC embeddings.
        queue_size: K, the number of negatives; at least the global batch (twice it if symmetric).
        momentum: m, the share of the key encoder kept at each step, in [0, 1].
        temperature: divides the similarities, > 0.
        symmetric: each view serves as query once and as key once; the two losses are added.
        shuffle: whether batches that do not bring an `order` are shuffled (shuffle-BN).
        gradient_accumulation: M micro-batches per step, exactly equal to one large batch if each
            is a whole number of BN groups.
        seed: int, of the queue's start and the shuffling.

    Raises:
        ValueError: for a value out of range, or an encoder that cannot be cloned.
    """

    mechanism = "queue"
    has_queue = True

    def __init__(
        self,
        encoder,
        queue_size=65536,
        momentum=0.999,
        temperature=0.07,
        symmetric=False,
        shuffle=True,
        gradient_accumulation=1,
        seed=0,
        **kwargs,
    ):
        super().__init__(encoder, temperature, shuffle, gradient_accumulation, seed, **kwargs)
        require(queue_size >= 1, "`queue_size` must be at least 1", queue_size=queue_size)
        require(0 <= momentum <= 1, "`momentum` must be in [0, 1]", momentum=momentum)
        self.queue_size = queue_size
        self.momentum = momentum
        self.symmetric = symmetric

        # The key encoder stays trainable, so that its BatchNorm uses batch statistics, but the
        # optimizer never sees it: `trainable_variables` are the query encoder's.
        self.encoder_k = clone(encoder)
        self.encoder_k.set_weights(encoder.get_weights())
        # aggregation="none": replicas assign the same values without a collective.
        self.queue = self.add_weight(  # queue: KxC, unit rows
            name="queue",
            shape=(queue_size, encoder.output_shape[-1]),
            initializer=random_keys(seed),
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="none",
        )
        self.queue_ptr = self.add_weight(
            name="queue_ptr",
            shape=(),
            initializer="zeros",
            trainable=False,
            dtype="int64",
            aggregation="none",
        )

    def step(self, batch):
        """One update of both encoders and the queue; arguments and result as in `Contrastive`."""
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
        self._dequeue_and_enqueue(tf.concat([k1, k2], axis=0) if self.symmetric else k2, counts)
        return logs

    def score(self, batch):
        """Loss and accuracies of a batch of any size, as `step` returns them; changes nothing."""
        x_q, x_k = self.aligned(batch)
        logs = self._score(x_q, x_k)
        return both_sides(logs, self._score(x_k, x_q)) if self.symmetric else logs

    def _score(self, x_q, x_k):
        q = normalize(self.encoder_q(x_q, training=False))  # queries: NxC
        k = normalize(self.encoder_k(x_k, training=False))  # keys: NxC
        return self._info_nce(q, k)

    def _contrast(self, x, row, keys):
        """Loss and accuracies of query views x, NxHxWxc of global rows `row`, against keys, BxC."""
        q = normalize(self.encoder_q(x, training=True))  # queries: NxC
        return self._info_nce(q, tf.gather(keys, row))

    def _info_nce(self, q, k):
        """Loss and accuracies of queries, NxC, against their keys, NxC, and the queue."""
        l_pos = tf.reduce_sum(q * k, axis=1)  # positive logits: N
        l_neg = tf.matmul(q, self.queue, transpose_b=True)  # negative logits: NxK
        return info_nce(l_pos, l_neg, self.temperature)

    def _keys(self, x, order):
        """Keys of all replicas in global order, BxC, for key views x of global rows `order`."""
        shape = x.shape[0], self.queue.shape[1]

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

    @staticmethod
    def num_negatives(queue_size, batch_size):
        return queue_size

    def filled(self, step, batch_size):
        return min(1.0, step * batch_size * (2 if self.symmetric else 1) / self.queue_size)

    def _momentum_update_key_encoder(self):
        """Moves the key encoder towards the query encoder; parameters only, never BN statistics."""
        m = self.momentum
        keys, queries = self.encoder_k.trainable_variables, self.encoder_q.trainable_variables
        for v_k, v_q in zip(keys, queries, strict=True):
            v_k.assign(m * v_k + (1 - m) * v_q)

    def _dequeue_and_enqueue(self, keys, counts):
        """Overwrites the oldest keys, wrapping around the end of the queue, if the step counts."""
        n = keys.shape[0]
        rule = "`queue_size` must be at least the new keys of a step (twice the batch if symmetric)"
        require(self.queue_size >= n, rule, queue_size=self.queue_size, new_keys=n)
        rows = (self.queue_ptr + tf.range(n, dtype=tf.int64)) % self.queue_size
        keys = tf.where(counts, keys, tf.gather(self.queue.value, rows))
        # Writes the new rows only: an assign would copy the whole queue.
        self.queue.value.scatter_update(tf.IndexedSlices(keys, rows))
        new = tf.where(counts, n, 0)
        self.queue_ptr.assign((self.queue_ptr + tf.cast(new, tf.int64)) % self.queue_size)
