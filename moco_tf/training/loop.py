"""One training loop for every strategy, driving Keras callbacks.

Steps run in rounds that end where something has to be seen: a log line, a checkpoint, the end
of an epoch. Only there does the host wait for the device. Callbacks then get
`on_train_batch_end` for each step of the round; the model is in the state of the last one.
"""

import time

import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.data import bad_images


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
        step: what each replica does with a batch, from `assembly.make_step`.
        strategy: of the model.
        steps: in one call.
        timed: whether to measure the wait for input.
        names: what `step` returns, scalars.

    Returns:
        Dict of arrays with one row a step: `names` (mean over this process' replicas),
        wait (seconds until the batch was there), ok (steps x rows), name (steps x rows x 120).
    """

    def clock():
        return tf.timestamp() if timed else tf.constant(0.0, tf.float64)

    def join(x):
        return tf.concat(strategy.experimental_local_results(x), axis=0)

    def one(iterator):
        start = clock()
        with tf.control_dependencies([start]):
            batch = iterator.get_next()
        seen = {name: join(batch.pop(name)) for name in ("ok", "name")}
        with tf.control_dependencies([seen["ok"]]):
            wait = clock() - start
        logs = strategy.run(step, (batch,))
        means = {
            name: tf.reduce_mean(tf.stack(strategy.experimental_local_results(logs[name])))
            for name in names
        }
        return means | seen | {"wait": wait}

    @tf.function(autograph=False)
    def call(iterator):
        if steps == 1:
            return tf.nest.map_structure(lambda x: x[None], one(iterator))
        spec = {
            **{name: tf.TensorSpec((), tf.float32) for name in names},
            "wait": tf.TensorSpec((), tf.float64),
            "ok": tf.TensorSpec((None,), tf.bool),
            "name": tf.TensorSpec((None, bad_images.NAME_BYTES), tf.uint8),
        }
        return tf.map_fn(
            lambda _: one(iterator),
            tf.range(steps),
            parallel_iterations=1,
            fn_output_signature=spec,
        )

    return call


def train(
    model,
    iterator,
    run_step,
    *,
    start,
    plan,
    every,
    marks,
    steps_per_call,
    callbacks,
    stop,
    timed,
    names=("loss", "top1", "top5"),
):
    """Trains from step `start` to `plan.stop`.

    Args:
        model: compiled `MoCo`, at step `start`.
        iterator: of `distribute_data`, at the same step.
        run_step: from `assembly.make_step`.
        start: steps done before.
        plan: `Plan`.
        every: numbers of steps at whose multiples a round ends; 0 for none.
        marks: further steps at which one ends.
        steps_per_call: steps in one call to the device.
        callbacks: `keras.callbacks.CallbackList`.
        stop: function that says whether to stop early; asked after each call. All processes
            stop when one is asked to.
        timed: whether to measure the wait for input; not under op determinism.
        names: what `run_step` returns, scalars; the loss is first.

    Returns:
        Steps done in all.

    Raises:
        Stopped: if `stop` asked for it before `plan.stop`, after the callbacks have ended.
    """
    strategy = model.distribute_strategy
    calls = {n: make_call(run_step, strategy, n, timed, names) for n in {1, steps_per_call}}
    step, epoch_rows = start, []
    callbacks.on_train_begin({"step": start})
    while step < plan.stop and not model.stop_training:
        if step == start or step % plan.steps_per_epoch == 0:
            callbacks.on_epoch_begin(step // plan.steps_per_epoch)
        multiples = [(step // n + 1) * n for n in every if n]
        epoch_end = (step // plan.steps_per_epoch + 1) * plan.steps_per_epoch
        end = min(plan.stop, epoch_end, *multiples, *[mark for mark in marks if mark > step])
        first, began, outputs, stopping = step, time.perf_counter(), [], False
        while step < end and not stopping:
            callbacks.on_train_batch_begin(step)
            n = steps_per_call if end - step >= steps_per_call else 1
            outputs.append(calls[n](iterator))
            step += n
            # Several workers must agree where to stop: they ask at the end of the round.
            stopping = stop() if distribute.num_hosts(strategy) == 1 else False
        rows = {k: np.concatenate([o[k].numpy() for o in outputs]) for k in outputs[0]}
        seconds = time.perf_counter() - began
        table = np.stack([rows[name] for name in names], axis=1)
        own = np.append(table.ravel(), [float(stop()), np.sum(~rows["ok"])])
        agreed = distribute.mean_over_workers(strategy, own)
        table, stopping = agreed[:-2].reshape(table.shape), agreed[-2] > 0
        bad = round(float(agreed[-1]) * distribute.num_workers(strategy))

        for i, values in enumerate(table):
            logs = dict(zip(names, map(float, values)))
            epoch_rows.append(values)
            if i == len(table) - 1:
                logs = logs | {  # what is known of the round goes with its last step
                    "seconds": seconds / len(table),
                    **({"input_wait": float(rows["wait"].sum() / seconds)} if timed else {}),
                    "bad": bad,  # on all workers
                    "bad_names": bad_images.decode_names(rows["name"][~rows["ok"]]),  # on this one
                    "round_end": True,
                }
            callbacks.on_train_batch_end(first + i + 1, logs)
        if step % plan.steps_per_epoch == 0 or step == plan.stop:
            finite = [row for row in epoch_rows if np.isfinite(row).all()] or epoch_rows
            means = dict(zip(names, map(float, np.mean(finite, axis=0))))
            callbacks.on_epoch_end((step - 1) // plan.steps_per_epoch, means)
            epoch_rows = []
        if stopping:
            break
    callbacks.on_train_end({"step": step})
    if step < plan.stop:
        raise Stopped(step)
    return step
