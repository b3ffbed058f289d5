"""Training a model for any task: checkpoints, observers and the loop, set up once."""

import os
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from moco_tf import distribute
from moco_tf.log import log
from moco_tf.training import callbacks, checkpoint, forecast, guard, loop
from moco_tf.training.plan import Plan
from moco_tf.training.round import Observer


def fit(
    model: keras.Model,
    path: str,
    config,
    plan: Plan,
    dataset: Callable[[int, int], tf.data.Dataset],
    step: Callable,
    test: Callable[[], dict[str, float]] | None,
    stop: Callable[[], bool],
    *,
    result: keras.Model | None = None,
    observers: Sequence[Observer] = (),
    remedy: str = "Start a new workdir with a lower learning rate.",
    input_remedy: str = "Give the host more cores, or faster storage.",
    max_bad_fraction: float = 0.0,
    max_skipped: int = 0,
    keep: int = 2,
    steps_per_call: int = 1,
    profile_steps: tuple[int, int] | None = None,
    names: tuple[str, ...] = ("loss", "top1", "top5"),
    why_bad: Callable[[str], str] = lambda name: "",
) -> int:
    """Trains a model from its newest checkpoint, or from the start.

    Args:
        model: compiled model with a built optimizer.
        path: file in the workdir, ending in .keras; `result` is written to it at each checkpoint.
        config: config with `batch_size`, `deterministic`, `log_every_steps` and
            `checkpoint_every_steps`.
        plan: `Plan` of the run.
        dataset: same as in `distribute.batches`.
        step: function of a replica's batch that trains one step, such as `model.step`.
        test: function without arguments that returns a dict of scores by name; None for no scores.
        stop: function that says whether to stop early.
        result: part of the model for later use; `model.network` by default.
        observers: further observers.
        remedy: advice to the user if the loss is not finite.
        input_remedy: advice to the user if the run waits for input.
        max_bad_fraction: share of undecodable images that is tolerated.
        max_skipped: number of steps with a non-finite loss or gradient that are tolerated.
        keep: number of checkpoints to keep, at least 2.
        steps_per_call: steps in one call to the device.
        profile_steps: first and last step to profile for TensorBoard, if any.
        names: names of the scalars that `step` returns; the loss is first.
        why_bad: function from the name of an undecodable image to the reason, in words or "".

    Returns:
        Steps done in all.

    Raises:
        loop.Stopped: if it was asked to stop before the end.
    """
    workdir = os.path.dirname(path)
    strategy = model.distribute_strategy
    is_chief = distribute.is_chief(strategy)
    checkpoints = checkpoint.Checkpoints(
        model, model.network if result is None else result, path, keep=keep, write=is_chief
    )
    start = checkpoints.restore()
    log.info(
        "%d %s of %d images, %d an epoch; %s",
        plan.stop,
        "step" if plan.stop == 1 else "steps",
        config.batch_size,
        plan.steps_per_epoch,
        f"resuming after step {start}" if start else "from the start",
    )
    metrics = callbacks.MetricsLog(workdir, plan.steps_per_epoch) if is_chief else None
    watching = [
        callbacks.Speed(config.batch_size, model.optimizer),
        *observers,
        guard.Guard(
            checkpoints,
            config.batch_size,
            max_bad_fraction,
            remedy,
            input_remedy,
            max_skipped,
            metrics,
            why_bad,
        ),
    ]
    if test is not None:  # after the guard, so that a failed run is not tested
        watching.append(callbacks.Scores(test, plan))
    if is_chief:
        watching += [metrics, callbacks.Progress(plan)]
    # On every worker, since a round must end at the same step on all.
    watching.append(forecast.Forecast(plan, config.batch_size, start, steps_per_call))
    if profile_steps:
        watching.append(callbacks.Profile(workdir, *profile_steps))
    every = config.checkpoint_every_steps
    watching.append(callbacks.Save(checkpoints, every, plan.steps_per_epoch, metrics))
    return loop.train(
        strategy,
        distribute.batches(strategy, dataset, start),
        step,
        start=start,
        plan=plan,
        log_every=config.log_every_steps,
        observers=watching,
        stop=stop,
        steps_per_call=steps_per_call,
        timed=not config.deterministic,
        names=names,
    )
