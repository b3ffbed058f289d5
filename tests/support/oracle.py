"""MoCo once more, written for clarity only: R replicas simulated one after the other.

It follows `moco/builder.py` of the official code, `torch.optim.SGD`, and for the symmetric
loss the CIFAR-10 demo. Of the project it shares the encoders' forward pass alone; in
particular it cuts the BN groups itself.
"""

import dataclasses

import numpy as np
import tensorflow as tf


class Encoder:
    """A model that normalises all rows it gets together, applied to groups of rows in turn."""

    def __init__(self, model, group_size):
        self.parameters = model.trainable_variables
        self.statistics = model.non_trainable_variables
        self.group_size = group_size
        self.forward = tf.function(lambda x: model(x, training=True), autograph=False)

    def __call__(self, images, keep_statistics):
        """Unit-length embeddings of the rows of one replica.

        The running statistics become the mean over the groups, or stay, as those of another
        replica than the one that is followed.
        """
        before = [v.numpy() for v in self.statistics]
        after, embeddings = [], []
        for start in range(0, len(images), self.group_size or len(images)):
            for v, value in zip(self.statistics, before):
                v.assign(value)
            group = images[start : start + (self.group_size or len(images))]
            x = self.forward(group)
            embeddings.append(x / tf.norm(x, axis=1, keepdims=True))
            after.append([v.numpy() for v in self.statistics])
        for i, v in enumerate(self.statistics):
            v.assign(
                np.mean([values[i] for values in after], axis=0) if keep_statistics else before[i]
            )
        return tf.concat(embeddings, axis=0)


@dataclasses.dataclass
class Oracle:
    """State and hyper-parameters of the simulation.

    Attributes:
        encoder_q, encoder_k: `Encoder`s of equal models that share no variable.
        queue: float32 KxC, unit rows.
        replicas: each holds as many consecutive rows of a batch.
        momentum: of the key encoder.
        temperature: of the softmax.
        symmetric: whether both views serve as queries.
        sgd: learning rate, momentum, weight decay.
    """

    encoder_q: Encoder
    encoder_k: Encoder
    queue: np.ndarray
    replicas: int
    momentum: float
    temperature: float
    symmetric: bool
    sgd: tuple

    def __post_init__(self):
        self.queue = np.array(self.queue)
        self.pointer = 0
        self.velocities = [np.zeros(v.shape, np.float32) for v in self.encoder_q.parameters]

    def step(self, views, orders):
        """Trains on one global batch.

        Args:
            views: two float32 arrays BxHxWxc, row i of both from image i.
            orders: for each view the order in which its rows lie on the replicas: replica r
                encodes rows order[r * B / R : (r + 1) * B / R] together.

        Returns:
            3xR: each replica's loss, top-1 and top-5 share.
        """
        sides = [(0, 1), (1, 0)] if self.symmetric else [(0, 1)]  # (query view, key view)
        with tf.GradientTape() as tape:
            queries = [self._encode(self.encoder_q, views[q], orders[q]) for q, _ in sides]
            self._move_key_encoder()
            keys = [self._encode(self.encoder_k, views[k], orders[k]) for _, k in sides]
            keys = [np.concatenate(k)[np.argsort(orders[v])] for k, (_, v) in zip(keys, sides)]
            logs = [
                [
                    self._contrast(q, k[rows])
                    for q, rows in zip(q_of_replica, np.split(orders[v], self.replicas))
                ]
                for q_of_replica, k, (v, _) in zip(queries, keys, sides)
            ]
            losses = [sum(log[r][0] for log in logs) for r in range(self.replicas)]
            loss = sum(losses) / self.replicas
        gradients = tape.gradient(loss, self.encoder_q.parameters)
        # View 1's keys come first: they were computed as the last.
        for k in keys[::-1]:
            self._enqueue(k)
        self._descend(gradients)
        tops = np.mean([[log[r][1] for r in range(self.replicas)] for log in logs], axis=0)
        return np.array([[float(x) for x in losses], *tops.T])

    def _encode(self, encoder, images, order):
        """Embeddings of each replica's rows, a list."""
        rows = np.split(order, self.replicas)
        return [encoder(images[i], keep_statistics=r == 0) for r, i in enumerate(rows)]

    def _contrast(self, q, k):
        """One replica's loss, and (top-1, top-5)."""
        positive = tf.reduce_sum(q * k, axis=1, keepdims=True)
        logits = tf.concat([positive, q @ self.queue.T], axis=1) / self.temperature
        log_probability = tf.nn.log_softmax(logits)[:, 0]
        best_first = np.argsort(-logits.numpy(), axis=1)
        tops = np.mean(best_first[:, :1] == 0), np.mean(np.any(best_first[:, :5] == 0, axis=1))
        return -tf.reduce_mean(log_probability), tops

    def _move_key_encoder(self):
        m = np.float32(self.momentum)
        for k, q in zip(self.encoder_k.parameters, self.encoder_q.parameters):
            k.assign(k.numpy() * m + q.numpy() * (1 - m))

    def _enqueue(self, keys):
        for key in keys:
            self.queue[self.pointer] = key
            self.pointer = (self.pointer + 1) % len(self.queue)

    def _descend(self, gradients):
        learning_rate, momentum, weight_decay = map(np.float32, self.sgd)
        for i, (w, g) in enumerate(zip(self.encoder_q.parameters, gradients)):
            g = g.numpy() + weight_decay * w.numpy()
            self.velocities[i] = momentum * self.velocities[i] + g
            w.assign(w.numpy() - learning_rate * self.velocities[i])
