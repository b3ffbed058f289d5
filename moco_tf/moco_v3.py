"""MoCo v3: in-batch negatives, a predictor on the queries, a momentum that rises to 1.

Shapes: N rows on this replica, B rows in the global batch, C embedding.

Source: MoCo v3 (arXiv:2104.02057), algorithm 1; moco/builder.py and main_moco.py of
facebookresearch/moco-v3.
"""

import math

import keras
import tensorflow as tf

from moco_tf.backbones import heads
from moco_tf.contrastive import info_nce, normalize, require
from moco_tf.momentum import MomentumContrast


@keras.saving.register_keras_serializable("moco_tf")
class MoCoV3(MomentumContrast):
    """Trains `encoder` and a predictor to match two views against the other images of the batch.

        model = MoCoV3(Encoder(backbone, heads.mlp_bn()), total_steps=31_200)
        model.compile(moco_tf.SGD(0.3, weight_decay=1e-6))
        model.fit(dataset, epochs=100)

    The keys of all replicas are the negatives, and there is no queue and no shuffling: build the
    backbone with synchronized BN. The loss is 2 * temperature * InfoNCE, for each view.

    Args:
        encoder: functional or built Sequential `keras.Model` from images to NxC embeddings: a
            backbone and a projector, `heads.mlp_bn`.
        hidden: units of the predictor's hidden layer; None for as many as there are embeddings.
        predictor_layers: number of the predictor's linear layers; 0 for no predictor.
        predictor_bn: whether the predictor ends in BN: false for the public code's ResNet, true
            for its vision transformers.
        momentum: m at the start, the share of the key encoder kept at each step, in [0, 1].
        momentum_schedule: "cosine" for a half-cycle from `momentum` to 1, or "constant".
        total_steps: steps until the momentum is 1; only "cosine" needs it.
        temperature: divides the similarities, > 0: 1 for ResNet, .2 for vision transformers.
        symmetric: each view serves as query once and as key once; the two losses are added.
        gradient_accumulation: M micro-batches per step, with the negatives of the whole batch.
        seed: int.

    Attributes:
        predictor: `keras.Model` from embeddings to NxC queries, or None.
    """

    mechanism = "moco_v3"
    keys_share_batch = False  # BN is over the whole batch, so no group can give a key away

    def __init__(
        self,
        encoder,
        hidden=4096,
        predictor_layers=2,
        predictor_bn=False,
        momentum=0.99,
        momentum_schedule="cosine",
        total_steps=None,
        temperature=1.0,
        symmetric=True,
        gradient_accumulation=1,
        seed=0,
        **kwargs,
    ):
        super().__init__(
            encoder, momentum, temperature, symmetric, False, gradient_accumulation, seed, **kwargs
        )
        rule = "`momentum_schedule` must be cosine or constant"
        is_known = momentum_schedule in ("cosine", "constant")
        require(is_known, rule, momentum_schedule=momentum_schedule)
        rule = "`total_steps` must be positive with momentum_schedule='cosine'"
        is_known = momentum_schedule == "constant" or (total_steps or 0) > 0
        require(is_known, rule, total_steps=total_steps)
        rule = "`predictor_layers` must be at least 0"
        require(predictor_layers >= 0, rule, predictor_layers=predictor_layers)
        self.hidden = hidden
        self.predictor_layers = predictor_layers
        self.predictor_bn = predictor_bn
        self.momentum_schedule = momentum_schedule
        self.total_steps = total_steps
        self.predictor = self._make_predictor(encoder.output_shape[-1])

    @property
    def trained_networks(self):
        return [self.encoder_q] if self.predictor is None else [self.encoder_q, self.predictor]

    @staticmethod
    def loss_factor(temperature):
        return 2 * temperature

    def momentum_at(self, step):
        """Shares of the key and of the query encoder after `step` steps, see the base class."""
        if self.momentum_schedule == "constant":
            return super().momentum_at(step)
        # 1 - m from the steps that are left: in float32, 1 minus an m near 1 has few digits.
        left = tf.cast(self.total_steps - step, tf.float32) / self.total_steps
        rest = (1 - self.momentum) * tf.sin(0.5 * math.pi * left) ** 2
        return 1 - rest, rest

    def queries(self, x, training):
        """Queries of unit length, NxC: predictions of the embeddings of views x, NxHxWxc."""
        if self.predictor is None:
            return super().queries(x, training)
        embeddings = self.encoder_q(x, training=training)
        return normalize(self.predictor(embeddings, training=training))

    def contrast(self, q, keys, row):
        """Loss and accuracies of queries against the batch's keys, see the base class."""
        similarity = tf.matmul(q, keys, transpose_b=True)  # NxB
        is_positive = row[:, None] == tf.range(tf.shape(keys)[0])  # NxB
        l_pos = tf.reduce_sum(tf.where(is_positive, similarity, 0.0), axis=1)  # N
        l_neg = tf.where(is_positive, -float("inf"), similarity)  # NxB
        logs = info_nce(l_pos, l_neg, self.temperature)
        return logs | {"loss": self.loss_factor(self.temperature) * logs["loss"]}

    def _make_predictor(self, dim):
        if not self.predictor_layers:
            return None
        predict = heads.mlp_bn(
            dim,
            self.hidden,
            self.predictor_layers,
            last_bn=self.predictor_bn,
            name="predictor",
        )
        embeddings = keras.Input([dim], dtype="float32", name="embeddings")
        return keras.Model(embeddings, predict(embeddings), name="predictor")
