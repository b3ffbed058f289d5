"""What watches a run: diagnostics, warnings, the kNN monitor, logs and checkpoints.

Their order matters: each may add to the logs of a round's last step, later ones write them.
"""

import json
import math
import os
import signal

import keras
import numpy as np
import tensorflow as tf
from absl import logging
from tqdm import tqdm

from moco_tf import distribute
from moco_tf.input_pipeline import key_order


class Diagnostics(keras.callbacks.Callback):
    """State of the queue, learning rate and speed, added to the logs of each round.

    Args:
        layout: `Layout` of the run.
        shuffle: whether shuffle-BN is on.
        every: steps between the costlier ones, about the queue.
    """

    def __init__(self, layout, shuffle, every):
        super().__init__()
        self.layout, self.every = layout, every
        self.where = layout.shuffling if shuffle else "none"

    def on_train_batch_end(self, step, logs):
        if "round_end" not in logs:
            return
        optimizer = self.model.optimizer
        logs["images_per_second"] = self.layout.batch / logs.pop("seconds")
        rate = optimizer._learning_rate
        logs["learning_rate"] = float(
            rate(tf.constant(step - 1, tf.int64)) if callable(rate) else rate
        )
        logs["momentum"] = self.model.momentum
        if step % self.every == 0:
            logs.update(self.queue_state(step))

    def queue_state(self, step):
        """Fill (share), age of the keys (steps), norms, effective rank, positives in own group."""
        model = self.model
        new = self.layout.batch * (2 if model.symmetric else 1)
        filled = min(model.queue_size, step * new)
        queue = model.queue.numpy()
        # Rows behind the pointer, newest first; the rest is the random start.
        newest = (int(model.queue_ptr.numpy()) - 1 - np.arange(filled)) % model.queue_size
        keys = queue[newest]
        variance = np.linalg.eigvalsh(keys.T @ keys / filled).clip(1e-12)
        share = variance / variance.sum()
        return {
            "queue_fill": filled / model.queue_size,
            "key_age": float(np.mean(np.arange(filled) // new)),
            "key_norm": float(np.mean(np.linalg.norm(keys, axis=1))),
            "key_mean_norm": float(np.linalg.norm(keys.mean(axis=0))),
            "key_effective_rank": float(np.exp(-np.sum(share * np.log(share)))),
            "positives_in_group": self.positives_in_group(step),
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


class Guard(keras.callbacks.Callback):
    """Stops a run that went wrong, and explains what only looks wrong.

    Args:
        checkpoints: `Checkpoints`, to name the last good one.
        layout: `Layout` of the run.
        max_bad_fraction: undecodable images tolerated.
    """

    def __init__(self, checkpoints, layout, max_bad_fraction):
        super().__init__()
        self.checkpoints, self.layout, self.max_bad = checkpoints, layout, max_bad_fraction
        self.bad, self.seen, self.named = 0, 0, set()
        self.stuck, self.said_filling, self.said_waiting = 0, False, False

    def on_train_batch_end(self, step, logs):
        self.seen += self.layout.batch
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"The loss must be finite. Received: {logs['loss']} at step {step}. The last good "
                f"checkpoint is {self.checkpoints.latest}. Lower the learning rate or look at the "
                "data; a rerun resumes from that checkpoint."
            )
        if "round_end" in logs:
            self._count_bad(step, logs)
            self._explain(step, logs)

    def _count_bad(self, step, logs):
        names = logs.pop("bad_names")
        self.bad += len(names)
        logs["bad_images"] = self.bad
        for name in sorted(set(names) - self.named):
            self.named.add(name)
            logging.warning("Replaced an image that cannot be decoded: %s", name or "(no name)")
        # The share means something only over a thousand images.
        if self.bad > self.max_bad * max(self.seen, 1000):
            raise ValueError(
                f"At most data.max_bad_fraction={self.max_bad} of the images may be undecodable. "
                f"Received: {self.bad} of {self.seen} up to step {step}, such as "
                f"{', '.join(sorted(self.named)[:3])}. Mend the data or raise the limit."
            )

    def _explain(self, step, logs):
        fill = logs.get("queue_fill", 1.0)
        if fill < 1 and not self.said_filling:
            self.said_filling = True
            logging.info(
                "The queue is filling with keys (%.0f %%). Until it is full the loss may rise: random "
                "vectors are easy negatives. That is normal.",
                100 * fill,
            )
        losses = 2 if self.model.symmetric else 1
        chance = losses * math.log(self.model.queue_size + 1)
        at_chance = fill == 1 and abs(logs["loss"] - chance) < 0.01 * chance
        self.stuck = self.stuck + 1 if at_chance else 0
        if self.stuck == 5:
            logging.warning(
                "The loss sticks at %.2f, which is ln(K+1)%s: the encoder tells no image from "
                "another. Look at the learning rate, the momentum and `key_effective_rank`.",
                chance,
                " twice" if losses == 2 else "",
            )
        if logs["input_wait"] > 0.1 and step > 50 and not self.said_waiting:
            self.said_waiting = True
            logging.warning(
                "Waiting for input %.0f %% of the time: the input pipeline is the bottleneck. Give "
                "the host more cores or faster storage, or set data.augment_on=device.",
                100 * logs["input_wait"],
            )


class Knn(keras.callbacks.Callback):
    """kNN accuracy every so many steps, before the first and after the last.

    Args:
        evaluate: function without arguments that gives the accuracy.
        plan: `Plan`, says when.
    """

    def __init__(self, evaluate, plan):
        super().__init__()
        self.evaluate, self.plan = evaluate, plan
        self.untrained = None

    def on_train_begin(self, logs):
        if logs["step"] == 0:
            self.untrained = logs["knn"] = self.evaluate()

    def on_train_batch_end(self, step, logs):
        due = step % self.plan.monitor_every == 0 or step == self.plan.stop
        if due and "round_end" in logs:
            logs["knn"] = self.evaluate()


class MetricsLog(keras.callbacks.Callback):
    """metrics.jsonl, one line a step, and TensorBoard scalars of each round.

    Args:
        workdir: local or gs:// folder.
        steps_per_epoch: to note the epoch.
    """

    def __init__(self, workdir, steps_per_epoch):
        super().__init__()
        self.path = os.path.join(workdir, "metrics.jsonl")
        self.remote = "://" in workdir
        self.steps_per_epoch = steps_per_epoch
        self.summary = tf.summary.create_file_writer(os.path.join(workdir, "tensorboard"))

    def on_train_begin(self, logs):
        # Steps after the checkpoint are trained, and logged, again.
        kept = [line for line in read_metrics(self.path) if line["step"] <= logs["step"]]
        with tf.io.gfile.GFile(self.path, "w") as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept))
        self.file = tf.io.gfile.GFile(self.path, "a")
        if logs["step"] == 0:
            self._write(0, logs)

    def on_train_batch_end(self, step, logs):
        self._write(step, logs)

    def _write(self, step, logs):
        values = {k: v for k, v in logs.items() if k not in ("round_end", "step")}
        line = {"step": step, "epoch": round(step / self.steps_per_epoch, 4), **values}
        self.file.write(json.dumps(line) + "\n")
        if step == 0 or "round_end" in logs:
            with self.summary.as_default(step=step):
                for name, value in values.items():
                    tf.summary.scalar(name, value)
            if not self.remote:  # a flush to object storage writes the whole file again
                self.flush()

    def flush(self):
        """Makes what was logged visible to readers."""
        self.file.flush()
        self.summary.flush()

    def on_train_end(self, logs=None):
        self.flush()
        self.file.close()


def read_metrics(path):
    """The lines of a metrics.jsonl, without one that a kill cut short: list of dicts."""
    if not tf.io.gfile.exists(path):
        return []
    lines = []
    with tf.io.gfile.GFile(path) as file:
        for line in file.read().split("\n")[:-1]:
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return lines


class Progress(keras.callbacks.Callback):
    """A progress bar over the whole run, with the time left.

    Args:
        plan: `Plan`.
    """

    def __init__(self, plan):
        super().__init__()
        self.plan, self.shown = plan, {}

    def on_train_begin(self, logs):
        # Not on a terminal, a line a minute is enough.
        interval = 0.5 if os.isatty(2) else 60
        self.bar = tqdm(
            total=self.plan.stop, initial=logs["step"], unit="step", mininterval=interval
        )

    def on_train_batch_end(self, step, logs):
        if "round_end" not in logs:
            return
        self.shown["epoch"] = f"{step / self.plan.steps_per_epoch:.1f}"
        for name, form in (("loss", "{:.3f}"), ("top1", "{:.1%}"), ("knn", "{:.1%}")):
            if name in logs:
                self.shown[name] = form.format(logs[name])
        self.shown["img/s"] = f"{logs['images_per_second']:.0f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(step - self.bar.n)

    def on_train_end(self, logs=None):
        self.bar.close()


class Save(keras.callbacks.Callback):
    """A checkpoint every so many steps, and at the end, and the encoder as encoder.keras.

    Args:
        checkpoints: `Checkpoints`.
        every: steps.
        metrics: `MetricsLog` to flush before, or None.
    """

    def __init__(self, checkpoints, every, metrics=None):
        super().__init__()
        self.checkpoints, self.every, self.metrics = checkpoints, every, metrics

    def on_train_batch_end(self, step, logs):
        if step % self.every == 0 and "round_end" in logs:
            self._save()

    def on_train_end(self, logs=None):
        self._save()

    def _save(self):
        if self.metrics:
            self.metrics.flush()
        self.checkpoints.save()


class Profile(keras.callbacks.Callback):
    """A TensorBoard profile of the steps `first` to `last`.

    Args:
        workdir: local or gs:// folder.
        first, last: steps, counted from 1.
    """

    def __init__(self, workdir, first, last):
        super().__init__()
        self.folder = os.path.join(workdir, "tensorboard")
        self.first, self.last, self.running = first, last, False

    def on_train_batch_begin(self, step, logs=None):
        if step + 1 == self.first:
            tf.profiler.experimental.start(self.folder)
            self.running = True

    def on_train_batch_end(self, step, logs=None):
        if self.running and step == self.last:
            self._stop()

    def on_train_end(self, logs=None):
        if self.running:
            self._stop()

    def _stop(self):
        tf.profiler.experimental.stop()
        self.running = False
        logging.info(
            "Wrote a profile of steps %d to %d: tensorboard --logdir %s",
            self.first,
            self.last,
            self.folder,
        )


class Termination:
    """Turns SIGTERM into a request to stop, so that a preempted machine saves first."""

    def __init__(self):
        self.requested = False
        signal.signal(signal.SIGTERM, self._request)

    def _request(self, *_):
        self.requested = True

    def __call__(self):
        """Whether the run was asked to stop."""
        return self.requested
