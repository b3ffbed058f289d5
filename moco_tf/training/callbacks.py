"""What a run measures and writes: scores, speed, metrics, progress, checkpoints, profiles.

The order of callbacks matters: each may add to the logs of a round's last step (the one with
"round_end"), and those after it see what it added.
"""

import json
import os
import signal

import keras
import tensorflow as tf
from tqdm import tqdm

from moco_tf import storage
from moco_tf.log import log


class Scores(keras.callbacks.Callback):
    """Scores such as kNN accuracy every so many steps, before the first and after the last.

    Args:
        evaluate: function without arguments that gives a dict of scores by name.
        plan: `Plan`, says when.
    """

    def __init__(self, evaluate, plan):
        super().__init__()
        self.evaluate, self.plan = evaluate, plan

    def on_train_begin(self, logs):
        if logs["step"] == 0:
            logs.update(self.evaluate())

    def on_train_batch_end(self, step, logs):
        due = step % self.plan.monitor_every == 0 or step == self.plan.stop
        if due and "round_end" in logs:
            logs.update(self.evaluate())


class Speed(keras.callbacks.Callback):
    """Images/s and learning rate, added to the logs of each round.

    Args:
        batch: images in a step, over all replicas.
    """

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, step, logs):
        if "round_end" in logs:
            logs["images_per_second"] = self.batch / logs.pop("seconds")
            rate = self.model.optimizer._learning_rate
            step = tf.constant(step - 1, tf.int64)
            logs["learning_rate"] = float(rate(step) if callable(rate) else rate)


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
        # Steps after the checkpoint are trained, and logged, again; from the start on step 0, too.
        kept = [line for line in read_metrics(self.path) if line["step"] <= logs["step"] > 0]
        storage.write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
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
    """A checkpoint every so many steps, and at the end.

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

    @property
    def marks(self):
        """Steps after which the device must be idle: before the first, and after the last."""
        return self.first - 1, self.last

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
        log.info(
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
