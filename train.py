"""Pre-trains an encoder with MoCo.

    python train.py --config=configs/moco_v2.py --workdir=runs/v2 [--strategy=...] \
        [--config.field=value ...]

The same command resumes a run that was stopped. Everything it writes is in the workdir:
checkpoints/, encoder.keras, metrics.jsonl, tensorboard/ and report.html.
"""

import sys

import keras
import tensorflow as tf
from absl import app, flags, logging
from ml_collections import config_flags

from moco_tf import (
    addresses,
    callbacks,
    checkpoint,
    datasets,
    distribute,
    recipes,
    report,
    training,
)
from moco_tf import config as config_lib
from moco_tf.evaluation import monitors

CONFIG = config_flags.DEFINE_config_file("config", "configs/quickstart.py", "Recipe of the run.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, local or gs://.")
STRATEGY = flags.DEFINE_enum("strategy", "auto", distribute.STRATEGIES, "tf.distribute strategy.")
TPU = flags.DEFINE_string("tpu", None, "Name of the TPU; on a TPU VM leave it out.")


def main(_):
    config, workdir = CONFIG.value, WORKDIR.value
    config_lib.check(config)
    if not workdir:
        raise ValueError("`--workdir` must name a folder for the run. Received: none.")
    strategy = distribute.make_strategy(STRATEGY.value, TPU.value)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    chief = distribute.is_chief(strategy)
    layout = training.make_layout(config, strategy)
    recipe = addresses.resolve(recipes, config.data.recipe, "data.recipe")
    source = datasets.open_source(
        config.data.source, config.data.data_dir or None, config.data.num_examples
    )
    plan = training.make_plan(config, source.num_examples)
    checkpoint.claim_workdir(config, workdir, write=chief)

    with strategy.scope():
        model = training.make_model(config, plan)
    checkpoints = checkpoint.Checkpoints(model, workdir, config.keep_checkpoints, write=chief)
    start = checkpoints.restore()
    describe(config, strategy, layout, source, plan, start)

    terminated = callbacks.Termination()
    knn = monitors.make_knn(config, model, recipe, strategy, plan)
    log_every = config.log_every_steps
    watching = [
        callbacks.Diagnostics(layout, config.model.shuffle, log_every),
        callbacks.Guard(checkpoints, layout, config.data.max_bad_fraction),
        *([knn] if knn else []),
    ]
    metrics = callbacks.MetricsLog(workdir, plan.steps_per_epoch) if chief else None
    if chief:
        watching += [metrics, callbacks.Progress(plan)]
    profile = config.profile_steps and (config.profile_steps[0] - 1, config.profile_steps[1])
    if profile:
        watching.append(callbacks.Profile(workdir, *config.profile_steps))
    watching.append(callbacks.Save(checkpoints, config.checkpoint_every_steps, metrics))

    on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    done = training.train(
        model,
        training.distribute_data(source, recipe, config, layout, strategy, start),
        recipe,
        strategy,
        start=start,
        plan=plan,
        every=(log_every, config.checkpoint_every_steps, plan.monitor_every, plan.steps_per_epoch),
        marks=profile,
        steps_per_call=config.steps_per_call or (log_every if on_tpu else 1),
        callbacks=keras.callbacks.CallbackList(watching, model=model),
        stop=terminated,
    )
    if not chief:
        return
    if terminated():
        logging.warning("Stopped by SIGTERM at step %d, saved. The same command resumes.", done)
        sys.exit(128 + 15)
    report_path = report.write(workdir, source, recipe, model.encoder_q, config)
    print(report.summary(workdir, done, checkpoints.latest, checkpoints.encoder, report_path))


def describe(config, strategy, layout, source, plan, start):
    """Logs what is about to run."""
    logging.info(
        "%d images, batch %d = %d replica(s) x %d rows, BN groups of %d; %d steps an epoch, %d in all%s",
        source.num_examples,
        layout.batch,
        layout.replicas,
        layout.replica_rows,
        layout.group_rows,
        plan.steps_per_epoch,
        plan.total,
        f"; resuming after step {start}" if start else "",
    )
    if config.model.shuffle and layout.shuffling == "none":
        logging.warning(
            "There is one BN group in all, so shuffling BN does nothing and the statistics may leak "
            "which key belongs to which query. Set config.model.bn_group_size, such as %d.",
            max(layout.batch // 8, 1),
        )
    cpu_only = not tf.config.list_logical_devices("GPU") and not tf.config.list_logical_devices(
        "TPU"
    )
    if config.mixed_bfloat16 and cpu_only:
        logging.warning("bfloat16 is about ten times slower than float32 on CPU.")


def parse_flags(argv):
    """Parses the command line; a user's mistake ends in a message, not a traceback."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(f"Unknown arguments: {' '.join(rest[1:])}. Flags start with --.")
        CONFIG.value.batch_size  # noqa: B018 raises if the file could not be read
        return rest
    except (flags.Error, KeyError, OSError, AttributeError) as error:
        sys.exit(f"{argv[0]}: {error.args[0] if error.args else error}")


def run(argv):
    """`main`, with errors about the user's input as one message."""
    try:
        main(argv)
    except (ValueError, FloatingPointError) as error:
        if logging.vlog_is_on(1):
            raise
        sys.exit(f"\n{error}\n(--v=1 shows where)")


if __name__ == "__main__":
    app.run(run, flags_parser=parse_flags)
