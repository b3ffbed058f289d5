"""Callbacks that tell a healthy run from a sick one."""

import math

import keras
import numpy as np

from moco_tf import distribute
from moco_tf.config import chance_loss
from moco_tf.input_pipeline import key_order
from moco_tf.log import log


class Diagnostics(keras.callbacks.Callback):
    """State of the keys, added to the logs of each round, and what about it looks wrong or is.

    Args:
        config: `Config` of the run, says what keys there are and how often to look at the queue.
        layout: its `Layout`.
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


class Guard(keras.callbacks.Callback):
    """Stops a run that went wrong.

    Args:
        checkpoints: `Checkpoints`, to name the last good one.
        batch: images in a step, over all replicas.
        max_bad_fraction: undecodable images tolerated.
        remedy: what would help if the loss is not finite.
        input_remedy: what would help if the run waits for input.
        max_skipped: steps without a finite loss and gradient that may pass.
    """

    def __init__(self, checkpoints, batch, max_bad_fraction, remedy, input_remedy, max_skipped=0):
        super().__init__()
        self.remedy, self.input_remedy = remedy, input_remedy
        self.checkpoints, self.batch, self.max_bad = checkpoints, batch, max_bad_fraction
        self.max_skipped, self.skipped = max_skipped, 0
        self.bad, self.seen, self.named = 0, 0, set()
        self.said_waiting = False

    def on_train_batch_end(self, step, logs):
        self.seen += self.batch
        if not math.isfinite(logs["loss"]):
            self._skip(step, logs)
        if "round_end" in logs:
            self._count_bad(step, logs)
            self._watch_input(step, logs)

    def _skip(self, step, logs):
        self.skipped += 1
        if self.skipped > self.max_skipped:
            raise FloatingPointError(
                "Loss and gradients must be finite"
                + (f", but for max_skipped_steps={self.max_skipped}" if self.max_skipped else "")
                + f". Received: loss {logs['loss']} at step {step}. Such a step changes nothing. "
                f"The last checkpoint, a good one, is {self.checkpoints.latest}. {self.remedy}"
            )
        log.warning("Step %d is skipped: its loss or a gradient is not finite.", step)
        for name in [name for name, value in logs.items() if value != value]:
            del logs[name]
        logs["skipped_steps"] = self.skipped

    def _count_bad(self, step, logs):
        names = logs.pop("bad_names")
        self.bad += logs.pop("bad")
        logs["bad_images"] = self.bad
        for name in sorted(set(names) - self.named):
            self.named.add(name)
            log.warning("Replaced an image that cannot be decoded: %s", name or "(no name)")
        # The share means something only over a thousand images.
        if self.bad > self.max_bad * max(self.seen, 1000):
            raise ValueError(
                f"At most data.max_bad_fraction={self.max_bad} of the images may be undecodable. "
                f"Received: {self.bad} of {self.seen} up to step {step}, such as "
                f"{', '.join(sorted(self.named)[:3]) or 'those named by other workers'}. Mend the "
                "data or raise the limit."
            )

    def _watch_input(self, step, logs):
        if logs.get("input_wait", 0) > 0.1 and step > 50 and not self.said_waiting:
            self.said_waiting = True
            log.warning(
                "Waiting for input %.0f %% of the time: the input pipeline is the bottleneck. %s",
                100 * logs["input_wait"],
                self.input_remedy,
            )
