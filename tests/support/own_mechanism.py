"""A mechanism from outside the package: SimCLR's loss, with the other queries as negatives."""

import tensorflow as tf

from moco_tf import distribute
from moco_tf.contrastive import Contrastive, info_nce, normalize


class InBatch(Contrastive):
    """Queries and keys by one encoder; a query's negatives are the keys of this replica."""

    mechanism = "in_batch"

    def __init__(self, encoder, temperature=0.2, shuffle=True, seed=0, **kwargs):
        super().__init__(encoder, temperature, shuffle, seed=seed, **kwargs)

    def step(self, batch):
        x_q, x_k, row, order = self.unpack(batch)
        n = x_q.shape[0]

        def loss_fn(views):
            x_q, x_k = views
            q = normalize(self.encoder_q(x_q, training=True))  # NxC
            k = normalize(self.encoder_q(x_k, training=True))  # NxC
            k = tf.gather(distribute.in_global_order(k, order), row)  # NxC
            similarity = tf.matmul(q, k, transpose_b=True)  # NxN
            l_pos = tf.linalg.diag_part(similarity)
            l_neg = tf.linalg.set_diag(similarity, tf.fill([n], -float("inf")))
            return info_nce(l_pos, l_neg, self.temperature)

        logs, _ = self.minimize(loss_fn, (x_q, x_k))
        return logs
