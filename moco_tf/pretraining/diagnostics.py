"""Callbacks that tell a healthy run from a sick one."""

import math

import keras
import numpy as np

from moco_tf import distribute
from moco_tf.data.two_views import key_order
from moco_tf.log import log
from moco_tf.pretraining.config import chance_loss


class Diagnostics(keras.callbacks.Callback):
    """State of the keys, added to the logs of each round, and what about it looks wrong or is.

    Args:
        config: `Config` of the run, says what keys there are and how often to look at the queue.
        layout: its `BatchLayout`.
    """

    def __init__(self, config, layout):
        super().__init__()
        self.layout, self.every = layout, config.log_every_steps
        self.mechanism, self.chance = config.model.mechanism, chance_loss(config)
        self.where = layout.shuffling if config.model.shuffle else "none"
        self.stuck, self.said_filling = 0, False

    def on_train_batch_end(self, step, logs):
        if "round_end" not in logs:
            return
        if self.mechanism == "queue":
            logs["momentum"] = self.model.momentum
        # Of a loss that is not finite nothing more needs to be known: `Guard` stops the run.
        if step % self.every == 0 and math.isfinite(logs["loss"]):
            if self.mechanism == "queue":
                logs.update(self.queue_state(step))
            if self.mechanism != "memory_bank":
                logs["positives_in_group"] = self.positives_in_group(step)
        self._explain(step, logs)

    def queue_state(self, step):
        """Fill (share), age of the keys (steps), norms, effective rank."""
        model = self.model
        new = self.layout.batch * (2 if model.symmetric else 1)
        filled = min(model.queue_size, step * new)
        queue = model.queue.numpy()
        # Rows behind the pointer, newest first; the rest is the random start.
        newest = (int(model.queue_ptr.numpy()) - 1 - np.arange(filled)) % model.queue_size
        keys = queue[newest]
        # Keys can be NaN a step before the loss is.
        variance = np.linalg.eigvalsh(np.nan_to_num(keys.T @ keys / filled)).clip(1e-12)
        share = variance / variance.sum()
        return {
            "queue_fill": filled / model.queue_size,
            "key_age": float(np.mean(np.arange(filled) // new)),
            "key_norm": float(np.mean(np.linalg.norm(keys, axis=1))),
            "key_mean_norm": float(np.linalg.norm(keys.mean(axis=0))),
            "key_effective_rank": float(np.exp(-np.sum(share * np.log(share)))),
        }

    def positives_in_group(self, step):
        """Share of keys that the last step normalised in the same BN group as their query."""
        layout, seed = self.layout, self.model.seed
        if self.where == "none":
            return 1.0
        if self.where == "step":
            order = distribute.permutation(layout.batch, [seed, step - 1]).numpy()
        else:
            orders = [key_order(layout.host_rows, seed, step - 1, h) for h in range(layout.hosts)]
            order = np.concatenate([o + h * layout.host_rows for h, o in enumerate(orders)])
        group = layout.group_rows
        return float(np.mean(order // group == np.arange(layout.batch) // group))

    def _explain(self, step, logs):
        fill = self._fill(step)
        if self.mechanism == "queue" and fill < 1 and not self.said_filling:
            self.said_filling = True
            log.info(
                "The queue is filling with keys (%.0f %%). Until it is full the loss may rise: the "
                "random start makes easy negatives. That is normal.",
                100 * fill,
            )
        at_chance = fill == 1 and abs(logs["loss"] - self.chance) < 0.01 * self.chance
        self.stuck = self.stuck + 1 if at_chance else 0
        if self.stuck == 5:
            log.warning(
                "The loss sticks at %.2f, which is ln(K+1)%s: the encoder tells no image from "
                "another. Look at the learning rate, the momentum and `key_effective_rank`.",
                self.chance,
                " twice" if self.model.symmetric else "",
            )

    def _fill(self, step):
        """Share of the queue, or of the bank, that is no longer its random start."""
        if self.mechanism == "end_to_end":
            return 1.0
        size = self.model.queue_size if self.mechanism == "queue" else self.model.num_images
        return min(1.0, step * self.layout.batch * (2 if self.model.symmetric else 1) / size)
