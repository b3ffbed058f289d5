"""Observers of a run: scores, speed, metrics, progress bar, checkpoints and profiles."""

import json
import math
import os
import time
from collections.abc import Callable

import tensorflow as tf
from tqdm import tqdm

from moco_tf.log import log
from moco_tf.training import metrics_file
from moco_tf.training.checkpoint import Checkpoints
from moco_tf.training.plan import Plan
from moco_tf.training.round import Observer, Round


class Scores(Observer):
    """Measures scores such as kNN accuracy before training, every so many steps, and at the end.

    Args:
        evaluate: function without arguments that returns a dict of scores by name.
        plan: `Plan` of the run, with the steps at which to measure.
    """

    def __init__(self, evaluate: Callable[[], dict[str, float]], plan: Plan):
        self.evaluate = evaluate
        self.stop = plan.stop
        self.every = plan.monitor_every

    def measure_untrained(self):
        return self.evaluate()

    def measure(self, round):
        is_due = self.every and round.last % self.every == 0
        return self.evaluate() if is_due or round.last == self.stop else {}


class Speed(Observer):
    """Measures images per second, the share of waiting for input, and the learning rate.

    Args:
        batch: images in a step, over all replicas.
        optimizer: optimizer of the model.
    """

    def __init__(self, batch: int, optimizer):
        self.batch = batch
        self.optimizer = optimizer

    def measure(self, round):
        wait = {} if round.wait is None else {"input_wait": round.wait}
        rate = self.optimizer._learning_rate
        if callable(rate):
            rate = rate(tf.constant(round.last - 1, tf.int64))
        return {
            **wait,
            "images_per_second": self.batch / (round.seconds / round.steps),
            "learning_rate": float(rate),
        }


class MetricsLog(Observer):
    """Writes metrics.jsonl, one line a step, and TensorBoard scalars of each round.

    Args:
        workdir: local or gs:// folder.
        steps_per_epoch: steps in an epoch, to note the epoch.
    """

    def __init__(self, workdir: str, steps_per_epoch: int):
        self.path = os.path.join(workdir, "metrics.jsonl")
        self.is_remote = "://" in workdir
        self.steps_per_epoch = steps_per_epoch
        self.summary = tf.summary.create_file_writer(os.path.join(workdir, "tensorboard"))

    def start(self, step):
        # Steps after the checkpoint are trained, and logged, again. So is step 0 of a new run.
        metrics_file.cut_after(self.path, step)
        self.file = tf.io.gfile.GFile(self.path, "a")

    def round_end(self, round):
        self.write_steps(round, round.last)
        values = self._write(round, round.last, round.measured)
        with self.summary.as_default(step=round.last):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        if not self.is_remote:  # a flush to object storage writes the whole file again
            self.flush()

    def write_steps(self, round: Round, end: int):
        """Writes the lines of a round's steps before step `end`."""
        for step in range(round.first, end):
            self._write(round, step, {})

    def _write(self, round, step, measured):
        """Writes the line of a step, without values that are not finite; returns the values."""
        logs = round.step_logs(step) if round.steps else {}
        values = {n: value for n, value in (logs | measured).items() if math.isfinite(value)}
        if step in round.skipped:
            values["skipped_steps"] = round.skipped[step]
        line = {"step": step, "epoch": round_epoch(step, self.steps_per_epoch), **values}
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        return values

    def flush(self):
        """Makes what was logged visible to readers."""
        self.file.flush()
        self.summary.flush()

    def end(self):
        self.flush()
        self.file.close()


def round_epoch(step: int, steps_per_epoch: int) -> float:
    """The number of epochs that so many steps are, with four decimals."""
    return round(step / steps_per_epoch, 4)


class Progress(Observer):
    """Shows a progress bar over the whole run, with the time left.

    Args:
        plan: `Plan` of the run.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        self.shown = {}

    def start(self, step):
        # If stderr is no terminal, print a line a minute.
        interval = 0.5 if os.isatty(2) else 60
        self.bar = tqdm(total=self.plan.stop, initial=step, unit="step", mininterval=interval)

    def round_end(self, round):
        if not round.steps:
            return
        values = round.step_logs(round.last) | round.measured
        self.shown["epoch"] = f"{round.last / self.plan.steps_per_epoch:.1f}"
        for name, form in (("loss", "{:.3f}"), ("top1", "{:.1%}"), ("knn", "{:.1%}")):
            if values.get(name, float("nan")) == values.get(name):
                self.shown[name] = form.format(values[name])
        self.shown["img/s"] = f"{values['images_per_second']:.0f}"
        self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update(round.last - self.bar.n)

    def end(self):
        self.bar.close()


MOST_SECONDS = 600  # between two checkpoints
EPOCH_SECONDS = 60  # between two checkpoints at the ends of short epochs: what a kill may cost
SAVING_SHARE = 0.02  # of a run's time, at most, for checkpoints at the ends of short epochs


class Save(Observer):
    """Saves a checkpoint every so many steps, at ends of epochs, every ten minutes, at the end.

    The end of an epoch counts once a minute has passed since the last checkpoint, and 50 times as
    long as that one took to write. So epochs of a second do not spend their time on checkpoints.

    Args:
        checkpoints: `Checkpoints` of the run.
        every: steps between checkpoints.
        epoch: steps in an epoch.
        metrics: `MetricsLog` to flush before saving, or None.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: int,
        epoch: int,
        metrics: MetricsLog | None = None,
    ):
        self.checkpoints = checkpoints
        self.every, self.epoch = every, epoch
        self.metrics = metrics
        self.saved_at = time.monotonic()
        self.epoch_seconds = EPOCH_SECONDS

    def round_end(self, round):
        if not round.steps:
            return
        seconds = time.monotonic() - self.saved_at
        ends_epoch = round.last % self.epoch == 0 and seconds >= self.epoch_seconds
        if round.last % self.every == 0 or ends_epoch or seconds > MOST_SECONDS:
            self._save()

    def _save(self):
        began = time.monotonic()
        if self.metrics:
            self.metrics.flush()
        self.checkpoints.save()
        self.saved_at = time.monotonic()
        self.epoch_seconds = max(EPOCH_SECONDS, (self.saved_at - began) / SAVING_SHARE)

    def end(self):
        self.checkpoints.save()


class Profile(Observer):
    """Records a TensorBoard profile of the steps `first` to `last`.

    Args:
        workdir: local or gs:// folder.
        first: number of the first step, counted from 1.
        last: number of the last step.
    """

    def __init__(self, workdir: str, first: int, last: int):
        self.folder = os.path.join(workdir, "tensorboard")
        self.first = first
        self.last = last
        self.marks = first - 1, last  # the device must be idle before the first and after the last
        self.is_running = False

    def round_begin(self, step):
        if step + 1 == self.first:
            tf.profiler.experimental.start(self.folder)
            self.is_running = True

    def round_end(self, round):
        if self.is_running and round.last == self.last:
            self._stop()

    def end(self):
        if self.is_running:
            self._stop()

    def _stop(self):
        tf.profiler.experimental.stop()
        self.is_running = False
        log.info(
            "Wrote a profile of steps %d to %d: tensorboard --logdir %s",
            self.first,
            self.last,
            self.folder,
        )
