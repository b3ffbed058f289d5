"""MoCo v3 once more, written for clarity only: one device that holds the whole batch.

It follows algorithm 1 of arXiv:2104.02057 and moco/builder.py and main_moco.py of
facebookresearch/moco-v3. With BN over all replicas and the keys of all replicas, R replicas are one
device with all rows. Of the project it shares the encoders' forward pass alone.
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf

EPSILON, OLD = 1e-5, 0.9  # torch's BatchNorm1d


class Predictor:
    """Linear, BN, ReLU, linear: weights are a dict of arrays, as torch's Sequential names them."""

    def __init__(self, weights):
        names = ("0.weight", "1.weight", "1.bias", "3.weight")
        self.parameters = [tf.Variable(weights[name]) for name in names]
        self.mean, self.variance = weights["1.running_mean"], weights["1.running_var"]

    def __call__(self, x):
        kernel, gamma, beta, last = self.parameters
        x = x @ kernel
        mean, variance = tf.nn.moments(x, axes=[0])
        unbiased = variance.numpy() * len(x) / (len(x) - 1)
        self.mean = OLD * self.mean + (1 - OLD) * mean.numpy()
        self.variance = OLD * self.variance + (1 - OLD) * unbiased
        x = (x - mean) / tf.sqrt(variance + EPSILON) * gamma + beta
        return tf.maximum(x, 0) @ last


@dataclasses.dataclass
class V3Oracle:
    """State and hyper-parameters of the simulation.

    Attributes:
        encoder_q, encoder_k: equal `keras.Model`s that share no variable.
        predictor: `Predictor`, or None.
        momentum: at the first step.
        total_steps: steps until it is 1.
        temperature: of the softmax.
        sgd: learning rate, momentum, weight decay.
    """

    encoder_q: object
    encoder_k: object
    predictor: Predictor | None
    momentum: float
    total_steps: int
    temperature: float
    sgd: tuple

    def __post_init__(self):
        self.done = 0
        self.parameters = list(self.encoder_q.trainable_variables)
        self.parameters += self.predictor.parameters if self.predictor else []
        self.velocities = [np.zeros(v.shape, np.float32) for v in self.parameters]

    def step(self, x1, x2):
        """Trains on one global batch; returns the losses of all queries, two arrays B."""
        with tf.GradientTape() as tape:
            q1, q2 = self._queries(x1), self._queries(x2)
            self._move_key_encoder()
            k2 = self._unit(self.encoder_k(x2, training=True))
            k1 = self._unit(self.encoder_k(x1, training=True))
            losses = self._losses(q1, k2), self._losses(q2, k1)
            loss = tf.reduce_mean(losses[0]) + tf.reduce_mean(losses[1])
        self._descend(tape.gradient(loss, self.parameters))
        self.done += 1
        return [x.numpy() for x in losses]

    def _queries(self, x):
        x = self.encoder_q(x, training=True)
        return self._unit(self.predictor(x) if self.predictor else x)

    def _unit(self, x):
        return x / tf.norm(x, axis=1, keepdims=True)

    def _losses(self, q, k):
        k = tf.constant(k.numpy())  # no gradient
        logits = tf.einsum("nc,mc->nm", q, k) / self.temperature
        labels = tf.range(len(q))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        return losses * (2 * self.temperature)

    def _move_key_encoder(self):
        progress = self.done / self.total_steps
        m = 1 - 0.5 * (1 + math.cos(math.pi * progress)) * (1 - self.momentum)
        pairs = zip(self.encoder_k.trainable_variables, self.encoder_q.trainable_variables)
        for k, q in pairs:
            k.assign(m * k.numpy() + (1 - m) * q.numpy())

    def _descend(self, gradients):
        rate, momentum, decay = map(np.float32, self.sgd)
        for i, (w, g) in enumerate(zip(self.parameters, gradients)):
            self.velocities[i] = momentum * self.velocities[i] + (g.numpy() + decay * w.numpy())
            w.assign(w.numpy() - rate * self.velocities[i])
