"""Momentum Contrast of MoCo v1 and v2: the queue of keys.

Shapes: N rows on this replica, B rows in the global batch, C embedding, K queue.

Source: MoCo v1 (arXiv:1911.05722), algorithm 1; moco/builder.py of the official code. The key
encoder and the step are in `momentum`, the loss is `contrastive.info_nce`.
"""

import keras
import tensorflow as tf

from moco_tf.contrastive import info_nce, random_keys, require
from moco_tf.momentum import MomentumContrast


@keras.saving.register_keras_serializable("moco_tf")
class MoCo(MomentumContrast):
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
        super().__init__(
            encoder,
            momentum,
            temperature,
            symmetric,
            shuffle,
            gradient_accumulation,
            seed,
            **kwargs,
        )
        require(queue_size >= 1, "`queue_size` must be at least 1", queue_size=queue_size)
        self.queue_size = queue_size
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

    def contrast(self, q, keys, row):
        """Loss and accuracies of queries against their keys and the queue, see the base class."""
        k = tf.gather(keys, row)  # NxC
        l_pos = tf.reduce_sum(q * k, axis=1)  # positive logits: N
        l_neg = tf.matmul(q, self.queue, transpose_b=True)  # negative logits: NxK
        return info_nce(l_pos, l_neg, self.temperature)

    def keep(self, keys, counts):
        """Enqueues the keys of a step."""
        self._dequeue_and_enqueue(keys, counts)

    @staticmethod
    def num_negatives(queue_size, batch_size):
        return queue_size

    def filled(self, step, batch_size):
        return min(1.0, step * batch_size * (2 if self.symmetric else 1) / self.queue_size)

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
