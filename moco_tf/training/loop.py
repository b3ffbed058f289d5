"""One training loop for every strategy and task.

Steps run in rounds that end where something has to be seen: a log line, a checkpoint, the end
of an epoch. Only there does the host wait for the device, and observers get a `Round`.
"""

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.data import bad_images
from moco_tf.training.plan import Plan
from moco_tf.training.round import Observer, Round


class Stopped(Exception):
    """A run was asked to stop before its end. Its state is saved: the same command resumes it.

    Attributes:
        step: steps done in all.
    """

    def __init__(self, step: int):
        super().__init__(f"Stopped after step {step}, saved. The same command resumes.")
        self.step = step


def make_call(step, strategy, steps, timed=True, names=("loss", "top1", "top5")):
    """A compiled function that takes an iterator and trains `steps` steps.

    Args:
        step: function of a replica's batch that trains one step and returns a dict of scalars.
        strategy: strategy of the model.
        steps: number of steps in one call.
        timed: whether to measure the wait for input.
        names: names of the scalars that `step` returns.

    Returns:
        Dict of arrays with one row a step: `names` (mean over this process' replicas),
        wait (seconds until the batch was there), ok (steps x rows), name (steps x rows x 120).
    """

    def clock():
        return tf.timestamp() if timed else tf.constant(0.0, tf.float64)

    def run_step(iterator):
        start = clock()
        with tf.control_dependencies([start]):
            batch = iterator.get_next()
        images = {
            "ok": distribute.join_rows(strategy, batch.pop("ok")),
            "name": distribute.join_rows(strategy, batch.pop("name")),
        }
        with tf.control_dependencies([images["ok"]]):
            wait = clock() - start
        logs = distribute.run(strategy, step, batch)
        return {name: logs[name] for name in names} | images | {"wait": wait}

    @tf.function(autograph=False)
    def call(iterator):
        if steps == 1:
            return tf.nest.map_structure(lambda x: x[None], run_step(iterator))
        spec = {
            **{name: tf.TensorSpec((), tf.float32) for name in names},
            "wait": tf.TensorSpec((), tf.float64),
            "ok": tf.TensorSpec((None,), tf.bool),
            "name": tf.TensorSpec((None, bad_images.NAME_BYTES), tf.uint8),
        }
        return tf.map_fn(
            lambda _: run_step(iterator),
            tf.range(steps),
            parallel_iterations=1,
            fn_output_signature=spec,
        )

    return call


def train(
    strategy: tf.distribute.Strategy,
    iterator,
    step: Callable,
    *,
    start: int,
    plan: Plan,
    log_every: int,
    observers: list[Observer],
    stop: Callable[[], bool],
    steps_per_call: int = 1,
    timed: bool = True,
    names: tuple[str, ...] = ("loss", "top1", "top5"),
) -> int:
    """Trains from step `start` to `plan.stop`.

    Args:
        strategy: strategy of the model.
        iterator: iterator over distributed batches, at step `start`.
        step: function of a replica's batch that trains one step, see `make_call`.
        start: number of steps done before.
        plan: `Plan` of the run.
        log_every: number of steps at whose multiples a round ends, beside those of the observers.
        observers: receive each `Round`; all have measured before any writes.
        stop: function that says whether to stop early, asked after each call to the device. All
            processes stop when one is asked to.
        steps_per_call: steps in one call to the device.
        timed: whether to measure the wait for input; not possible under op determinism.
        names: names of the scalars that `step` returns; the loss is first.

    Returns:
        Steps done in all.

    Raises:
        Stopped: if `stop` asked for it before `plan.stop`, after the observers have ended.
    """
    calls = {n: make_call(step, strategy, n, timed, names) for n in {1, steps_per_call}}
    every = [log_every, plan.steps_per_epoch, *(observer.every for observer in observers)]
    marks = [mark for observer in observers for mark in observer.marks]
    done, is_stopping = start, False
    for observer in observers:
        observer.start(done)
    if done == 0:
        untrained = Round(0, 0)
        for observer in observers:
            untrained.measured |= observer.measure_untrained()
        _report(observers, untrained)
    while done < plan.stop and not is_stopping:
        multiples = [(done // n + 1) * n for n in every if n]
        end = min(plan.stop, *multiples, *[mark for mark in marks if mark > done])
        for observer in observers:
            observer.round_begin(done)
        first = done + 1
        began = time.perf_counter()
        outputs = []
        while done < end and not is_stopping:
            n = steps_per_call if end - done >= steps_per_call else 1
            outputs.append(calls[n](iterator))
            done += n
            # Several workers must agree where to stop: they ask at the end of the round.
            is_stopping = stop() if distribute.num_hosts(strategy) == 1 else False
        rows = {k: np.concatenate([o[k].numpy() for o in outputs]) for k in outputs[0]}
        seconds = time.perf_counter() - began
        logs, is_stopping, bad = _over_workers(strategy, rows, names, stop())
        round = Round(
            first,
            done,
            logs,
            seconds,
            wait=float(rows["wait"].sum() / seconds) if timed else None,
            bad=bad,
            bad_names=bad_images.decode_names(rows["name"][~rows["ok"]]),
        )
        for observer in observers:
            round.measured |= observer.measure(round)
        _report(observers, round)
    for observer in observers:
        observer.end()
    if done < plan.stop:
        raise Stopped(done)
    return done


def _report(observers, round):
    for observer in observers:
        observer.round_end(round)


def _over_workers(strategy, rows, names, is_asked_to_stop):
    """Mean logs of all workers, whether any was asked to stop, and their sum of bad images."""
    table = np.stack([rows[name] for name in names], axis=1)
    local = np.append(table.ravel(), [float(is_asked_to_stop), np.sum(~rows["ok"])])
    agreed = distribute.mean_over_workers(strategy, local)
    table = agreed[:-2].reshape(table.shape)
    bad = round(float(agreed[-1]) * distribute.num_workers(strategy))
    return dict(zip(names, table.T, strict=True)), bool(agreed[-2] > 0), bad
