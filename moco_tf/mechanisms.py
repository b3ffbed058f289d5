"""The two other contrastive mechanisms that the MoCo paper compares with the queue.

Shapes: N rows on this replica, B rows in the global batch, C embedding, K negatives, I images.

Source: MoCo v1 (arXiv:1911.05722), section 3.2, figure 2 and figure 3; for the memory bank
Wu et al. (arXiv:1805.01978).
"""

import tensorflow as tf

from moco_tf import distribute
from moco_tf.moco import MoCo, normalize, require

BANK_MOMENTUM = 0.5  # Wu et al., in lemniscate.pytorch


class EndToEnd(MoCo):
    """Keys by the query encoder too, with gradients; negatives are the batch's other B-1 keys.

    Args:
        encoder, temperature, shuffle, seed: as of `MoCo`. The keys' views are shuffled as there.
    """

    SETTINGS = ("temperature", "shuffle", "seed")

    def __init__(self, encoder, temperature=0.07, shuffle=True, seed=0):
        super().__init__(encoder, temperature=temperature, shuffle=shuffle, seed=seed)

    def _make_dictionary(self):
        """The batch is all there is."""

    def step(self, batch):
        """One update of the encoder; batch and logs as of `MoCo.step`."""
        x_q, x_k, row, order = self._views(batch)
        with tf.GradientTape() as tape:
            q = normalize(self.encoder_q(x_q, training=True))  # queries: NxC
            k = normalize(self.encoder_q(x_k, training=True))  # keys: NxC
            # The gradient of a gather brings each key what it did to the losses of all replicas.
            k, order = distribute.all_gather(k), distribute.all_gather(order)  # BxC, B
            similarity = tf.matmul(q, k, transpose_b=True)  # NxB
            own = row[:, None] == order  # NxB
            l_pos = tf.reduce_sum(tf.where(own, similarity, 0.0), axis=1)  # N
            loss, top = self._info_nce(l_pos, tf.where(own, -float("inf"), similarity))
            scaled = loss / distribute.num_replicas()  # the optimizer adds up the gradients
        gradients = tape.gradient(scaled, self.encoder_q.trainable_variables)
        self.optimizer.apply(gradients, self.encoder_q.trainable_variables)
        return {"loss": loss, "top1": top[0], "top5": top[1]}


class MemoryBank(MoCo):
    """Keys are what a bank remembers of each image: its own entry is a query's positive.

    An entry is the mean of the queries that its image gave, each weighing half as much as the next.
    The K negatives are drawn anew in each step, for the whole batch. One that is the query's own
    entry does not count, unlike in Wu et al.: where K is near I, as in small data, many would be.

    Args:
        encoder, temperature, seed: as of `MoCo`.
        num_images: I, of the data.
        queue_size: K.
    """

    SETTINGS = ("num_images", "queue_size", "temperature", "seed")

    def __init__(self, encoder, num_images, queue_size=65536, temperature=0.07, seed=0):
        super().__init__(encoder, queue_size=queue_size, temperature=temperature, seed=seed)
        require(num_images >= 1, "`num_images` must be at least 1", num_images=num_images)
        self.num_images = num_images
        self.bank = self.add_weight(  # bank: IxC, unit rows
            name="bank",
            shape=(num_images, encoder.output_shape[-1]),
            initializer=self._random_keys,
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="none",  # as of the queue
        )

    def _make_dictionary(self):
        """The bank, which needs to know how many images there are, is made in the constructor."""

    def step(self, batch):
        """One update of the encoder and the bank.

        Args:
            batch: dict with x_q (NxHxWxc) and index (int64 N), the images' numbers in 0..I-1.
                Other views, such as x_k, are not looked at.

        Returns:
            As of `MoCo.step`.
        """
        rule = "A memory bank needs x_q and index: use `two_view_dataset(..., with_index=True)`"
        keys = set(batch) if isinstance(batch, dict) else type(batch).__name__
        require(isinstance(batch, dict) and {"x_q", "index"} <= keys, rule, batch=keys)
        index = batch["index"]
        drawn = self._draw()  # K
        # `value`, the variable itself, is read in these rows alone; the bank may be large.
        k, negatives = (tf.gather(self.bank.value, i) for i in (index, drawn))  # NxC, KxC
        with tf.GradientTape() as tape:
            q = normalize(self.encoder_q(batch["x_q"], training=True))  # queries: NxC
            l_pos = tf.reduce_sum(q * k, axis=1)  # N
            l_neg = tf.matmul(q, negatives, transpose_b=True)  # NxK
            own = index[:, None] == drawn  # NxK
            loss, top = self._info_nce(l_pos, tf.where(own, -float("inf"), l_neg))
            scaled = loss / distribute.num_replicas()  # the optimizer adds up the gradients
        gradients = tape.gradient(scaled, self.encoder_q.trainable_variables)
        loss, gradients = distribute.poison(loss, gradients)
        self.optimizer.apply(gradients, self.encoder_q.trainable_variables)
        self._remember(q, index)
        return {"loss": loss, "top1": top[0], "top5": top[1]}

    def _draw(self):
        """Numbers of the step's negatives, the same on all replicas: int64, K."""
        # Counted from 1: number 0 of this seed made the bank.
        key = [self.seed, self.optimizer.iterations.value + 1]
        return tf.random.stateless_uniform(
            [self.queue_size], key, maxval=self.num_images, dtype=tf.int64, alg="philox"
        )

    def _remember(self, q, index):
        """Moves the entries of all replicas' images half-way to their queries."""
        q, index = distribute.all_gather(q), distribute.all_gather(index)  # BxC, B
        # An image that stands in for a bad one is there twice: its first row counts, for the order
        # in which rows are written is not defined.
        first = tf.argmax(tf.cast(index[:, None] == index, tf.int32), axis=1)  # B
        m = BANK_MOMENTUM
        entries = m * tf.gather(self.bank.value, index) + (1 - m) * tf.gather(q, first)
        self.bank.value.scatter_update(tf.IndexedSlices(normalize(entries), index))
