"""Training a network for a task: what is watched and written on the way, and resuming."""

import os

import keras

from moco_tf import distribute
from moco_tf.log import log
from moco_tf.training import callbacks, checkpoint, guard, loop


def fit(
    model,
    path,
    config,
    plan,
    dataset,
    step,
    test,
    stop,
    *,
    remedy="Start a new workdir with a lower learning rate.",
    max_bad_fraction=0.0,
    names=("loss", "top1", "top5"),
):
    """Trains a model from its newest checkpoint on, or from the start.

    Args:
        model: compiled, with a built optimizer and a `network`, a `keras.Model` that others use.
        path: file of the network in the workdir, ending in .keras; written at each checkpoint.
        config: of the task.
        plan: `Plan`.
        dataset: as of `batches`.
        step: what each replica does with a batch, such as `model.step`.
        test: function without arguments that gives a dict of scores by name.
        stop: function that says whether to stop early.
        remedy: what would help if the loss is not finite.
        max_bad_fraction: undecodable images tolerated.
        names: what `step` returns, scalars; the loss is first.

    Returns:
        Steps done in all.

    Raises:
        loop.Stopped: if it was asked to stop before the end.
    """
    workdir, strategy = os.path.dirname(path), model.distribute_strategy
    chief = distribute.is_chief(strategy)
    checkpoints = checkpoint.Checkpoints(model, model.network, path, keep=2, write=chief)
    start = checkpoints.restore()
    log.info(
        "%d steps of %d images, %d an epoch", plan.stop, config.batch_size, plan.steps_per_epoch
    )
    metrics = callbacks.MetricsLog(workdir, plan.steps_per_epoch) if chief else None
    watching = [
        callbacks.Speed(config.batch_size),
        guard.Guard(
            *(checkpoints, config.batch_size, max_bad_fraction, remedy),
            "Give the host more cores, or faster storage.",
        ),
        callbacks.Scores(test, plan),
        metrics,
        callbacks.Progress(plan) if chief else None,
        callbacks.Save(checkpoints, config.checkpoint_every_steps, metrics),
    ]
    return loop.train(
        model,
        batches(strategy, dataset, start),
        step,
        start=start,
        plan=plan,
        every=(config.log_every_steps, config.checkpoint_every_steps, plan.monitor_every),
        marks=(),
        steps_per_call=1,
        callbacks=keras.callbacks.CallbackList([c for c in watching if c], model=model),
        stop=stop,
        timed=not config.deterministic,
        names=names,
    )


def batches(strategy, dataset, start):
    """Iterator over distributed batches.

    Args:
        strategy: of the model.
        dataset: function of a host's number and the first step, to a `tf.data.Dataset` of batches
            for each of its replicas in turn.
        start: first step.
    """
    return iter(
        strategy.distribute_datasets_from_function(
            lambda context: dataset(context.input_pipeline_id, start)
        )
    )
