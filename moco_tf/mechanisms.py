"""The two other contrastive mechanisms that the MoCo paper compares with the queue.

Shapes: N rows on this replica, B rows in the global batch, C embedding, K negatives, I images.

Source: MoCo v1 (arXiv:1911.05722), section 3.2, figure 2 and figure 3; for the memory bank
Wu et al. (arXiv:1805.01978).
"""

import keras
import tensorflow as tf

from moco_tf import distribute, fit_data
from moco_tf.contrastive import Contrastive, info_nce, normalize, random_keys, require

BANK_MOMENTUM = 0.5  # Wu et al., in lemniscate.pytorch


@keras.saving.register_keras_serializable("moco_tf")
class EndToEnd(Contrastive):
    """Keys by the query encoder too, with gradients; negatives are the batch's other B-1 keys.

    Args:
        encoder, temperature, shuffle, seed: same as in `MoCo`. The key views are shuffled as there.
    """

    mechanism = "end_to_end"

    def __init__(self, encoder, temperature=0.07, shuffle=True, seed=0, **kwargs):
        super().__init__(encoder, temperature, shuffle, seed=seed, **kwargs)

    def step(self, batch):
        """One update of the encoder; arguments and result as in `Contrastive`."""
        x_q, x_k, row, order = self.unpack(batch)
        orders = distribute.all_gather(order)  # B

        def loss_fn(views):
            x_q, x_k = views
            q = normalize(self.encoder_q(x_q, training=True))  # queries: NxC
            k = normalize(self.encoder_q(x_k, training=True))  # keys: NxC
            # The gradient of a gather brings each key what it did to the losses of all replicas.
            k = distribute.all_gather(k)  # BxC
            similarity = tf.matmul(q, k, transpose_b=True)  # NxB
            is_positive = row[:, None] == orders  # NxB
            l_pos = tf.reduce_sum(tf.where(is_positive, similarity, 0.0), axis=1)  # N
            l_neg = tf.where(is_positive, -float("inf"), similarity)  # NxB
            return info_nce(l_pos, l_neg, self.temperature)

        logs, _ = self.minimize(loss_fn, (x_q, x_k))
        return logs

    def score(self, batch):
        """Loss and accuracies of a batch in inference mode, which changes nothing.

        Args:
            batch: same as in `step`. The negatives are this replica's other keys.
        """
        x_q, x_k = self.aligned(batch)
        q = normalize(self.encoder_q(x_q, training=False))  # queries: NxC
        k = normalize(self.encoder_q(x_k, training=False))  # keys: NxC
        similarity = tf.matmul(q, k, transpose_b=True)  # NxN
        nothing = tf.fill(tf.shape(similarity)[:1], -float("inf"))
        l_neg = tf.linalg.set_diag(similarity, nothing)
        return info_nce(tf.linalg.diag_part(similarity), l_neg, self.temperature)


@keras.saving.register_keras_serializable("moco_tf")
class MemoryBank(Contrastive):
    """Keys are what a bank remembers of each image: its own entry is a query's positive.

    An entry is a moving mean of the queries that its image gave, each weighing half as much as the
    next. Each step draws K negatives for the whole batch. One that is the query's own entry does
    not count, unlike in Wu et al.: where K is near I, as in small data, many would be.

    Args:
        encoder, temperature, seed: same as in `MoCo`.
        num_images: I, of the data.
        queue_size: K.
    """

    mechanism = "memory_bank"
    needs_index = True
    keys_share_batch = False

    def __init__(self, encoder, num_images, queue_size=65536, temperature=0.07, seed=0, **kwargs):
        super().__init__(encoder, temperature, shuffle=False, seed=seed, **kwargs)
        require(queue_size >= 1, "`queue_size` must be at least 1", queue_size=queue_size)
        require(num_images >= 1, "`num_images` must be at least 1", num_images=num_images)
        self.num_images = num_images
        self.queue_size = queue_size
        self.bank = self.add_weight(  # bank: IxC, unit rows
            name="bank",
            shape=(num_images, encoder.output_shape[-1]),
            initializer=random_keys(seed),
            trainable=False,
            dtype="float32",
            autocast=False,
            aggregation="none",  # same as for MoCo's queue
        )

    def step(self, batch):
        """One update of the encoder and the bank.

        Args:
            batch: dict with x_q (NxHxWxc) and index (int64 N), the images' numbers in 0..I-1.
                Other views, such as x_k, are ignored.

        Returns:
            Same as in `Contrastive`.
        """
        x_q, index = self._images(batch)
        contrast = self._against_bank(index)

        def loss_fn(x):
            q = normalize(self.encoder_q(x, training=True))  # queries: NxC
            return contrast(q) | {"q": q}

        logs, counts = self.minimize(loss_fn, x_q)
        self._remember(logs.pop("q"), index, counts)
        return logs

    def score(self, batch):
        """Loss and accuracies of a batch in inference mode, which changes nothing.

        Args:
            batch: same as in `step`; only images that have an entry in the bank can be measured.
        """
        x_q, index = self._images(batch)
        return self._against_bank(index)(normalize(self.encoder_q(x_q, training=False)))

    def _images(self, batch):
        """Query views and images' numbers of a batch: `(x_q, index)`."""
        rule = "A memory bank needs x_q and index: use `moco_tf.two_views(..., with_index=True)`"
        batch = fit_data.pair(batch)
        require({"x_q", "index"} <= batch.keys(), rule, batch=set(batch))
        return batch["x_q"], batch["index"]

    def _against_bank(self, index):
        """Function from queries, NxC, of images `index`, to their loss and accuracies."""
        drawn = self._draw()  # K
        # `value`, the variable itself, is read in these rows alone; the bank may be large.
        k = tf.gather(self.bank.value, index)  # NxC
        negatives = tf.gather(self.bank.value, drawn)  # KxC

        def contrast(q):
            l_pos = tf.reduce_sum(q * k, axis=1)  # N
            l_neg = tf.matmul(q, negatives, transpose_b=True)  # NxK
            is_own_entry = index[:, None] == drawn  # NxK
            l_neg = tf.where(is_own_entry, -float("inf"), l_neg)
            return info_nce(l_pos, l_neg, self.temperature)

        return contrast

    @staticmethod
    def num_negatives(queue_size, batch_size):
        return queue_size

    def filled(self, step, batch_size):
        return min(1.0, step * batch_size / self.num_images)

    def _draw(self):
        """Numbers of the step's negatives, the same on all replicas: int64, K."""
        # Counted from 1: number 0 of this seed made the bank.
        key = [self.seed, self.optimizer.iterations.value + 1]
        return tf.random.stateless_uniform(
            [self.queue_size], key, maxval=self.num_images, dtype=tf.int64, alg="philox"
        )

    def _remember(self, q, index, counts):
        """Moves the entries of all replicas' images half-way to their queries, if the step counts.

        Args:
            q: float32 NxC, queries.
            index: int64 N, numbers of their images.
            counts: bool scalar.
        """
        q = distribute.all_gather(q)  # BxC
        index = distribute.all_gather(index)  # B
        # An image that stands in for a bad one is there twice: its first row counts, for the order
        # in which rows are written is not defined.
        first = tf.argmax(tf.cast(index[:, None] == index, tf.int32), axis=1)  # B
        old = tf.gather(self.bank.value, index)  # BxC
        new = normalize(BANK_MOMENTUM * old + (1 - BANK_MOMENTUM) * tf.gather(q, first))
        self.bank.value.scatter_update(tf.IndexedSlices(tf.where(counts, new, old), index))
