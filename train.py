"""Pre-trains an encoder with MoCo.

    python train.py --config=configs/moco_v2.py --workdir=runs/v2 [--strategy=...] \
        [--config.field=value ...]

The same command resumes a run that was stopped. Everything it writes is in the workdir:
checkpoints/, encoder.keras, metrics.jsonl, tensorboard/ and report.html.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts to speak

import keras
import tensorflow as tf
from absl import app, flags
from ml_collections import config_flags

from moco_tf import (
    addresses,
    assembly,
    callbacks,
    checkpoint,
    datasets,
    diagnostics,
    distribute,
    recipes,
    training,
)
from moco_tf import config as config_lib
from moco_tf import report as report_lib
from moco_tf.evaluation import monitors
from moco_tf.log import log, show_log

CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, a file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, local or gs://.")
STRATEGY = flags.DEFINE_enum("strategy", "auto", distribute.STRATEGIES, "tf.distribute strategy.")
TPU = flags.DEFINE_string("tpu", None, "Name of the TPU; on a TPU VM leave it out.")
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error comes from.")


def pretrain(config, workdir, strategy, stop):
    """Runs or resumes a pre-training run.

    Args:
        config: checked `Config`.
        workdir: folder of the run, local or gs://.
        strategy: of `distribute.make_strategy`.
        stop: function that says whether to stop early.

    Returns:
        Steps done in all, and whether these are all that there were to do.
    """
    chief = distribute.is_chief(strategy)
    layout = assembly.make_layout(config, strategy)
    recipe = addresses.resolve(recipes, config.data.recipe, "data.recipe")
    source = datasets.open_source(
        config.data.source, config.data.data_dir or None, config.data.num_examples
    )
    plan = assembly.make_plan(config, source.num_examples)
    with strategy.scope():
        model = assembly.make_model(config, plan)
    knn = monitors.make_knn(config, model, recipe, strategy, plan)
    checkpoint.claim_workdir(config, workdir, write=chief)
    checkpoints = checkpoint.Checkpoints(model, workdir, config.keep_checkpoints, write=chief)
    start = checkpoints.restore()
    assembly.describe(config, layout, source, plan, start)

    every = (config.log_every_steps, config.checkpoint_every_steps)
    metrics = callbacks.MetricsLog(workdir, plan.steps_per_epoch) if chief else None
    profile = callbacks.Profile(workdir, *config.profile_steps) if config.profile_steps else None
    watching = [
        diagnostics.Diagnostics(layout, config.model.shuffle, config.log_every_steps),
        diagnostics.Guard(
            checkpoints, layout, config.data.max_bad_fraction, assembly.input_remedy(config)
        ),
        knn,
        metrics,
        callbacks.Progress(plan) if chief else None,
        profile,
        callbacks.Save(checkpoints, config.checkpoint_every_steps, metrics),
    ]
    done = training.train(
        model,
        assembly.distribute_data(source, recipe, config, layout, strategy, start),
        assembly.make_step(model, recipe, config, strategy),
        start=start,
        plan=plan,
        every=(*every, plan.monitor_every if knn else 0),
        marks=profile.marks if profile else (),
        steps_per_call=assembly.steps_per_call(config, strategy),
        callbacks=keras.callbacks.CallbackList([c for c in watching if c], model=model),
        stop=stop,
        timed=not config.deterministic,
    )
    finished = done == plan.stop
    if chief and finished:
        report = report_lib.write(workdir, source, recipe, model.encoder_q, config)
        print(report_lib.summary(workdir, done, checkpoints.latest, checkpoints.encoder, report))
    return done, finished


def main(_):
    config = CONFIG.value
    config_lib.check(config)
    if not WORKDIR.value:
        raise ValueError("`--workdir` must name a folder for the run, such as runs/v2.")
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    strategy = distribute.make_strategy(STRATEGY.value, TPU.value)
    terminated = callbacks.Termination()
    done, finished = pretrain(config, WORKDIR.value, strategy, terminated)
    if not finished:
        log.warning("Stopped by SIGTERM after step %d, saved. The same command resumes.", done)
        sys.exit(128 + 15)


def parse_flags(argv):
    """Parses the command line; a user's mistake ends in a message, not a traceback."""
    try:
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise flags.Error(f"Unknown arguments: {' '.join(rest[1:])}. Flags start with --.")
        if CONFIG.value is None:
            raise flags.Error("`--config` must name a recipe, such as configs/quickstart.py.")
        config_lib.check(CONFIG.value)
        return rest
    except (flags.Error, AttributeError, KeyError, OSError, ValueError) as error:
        sys.exit(f"{argv[0]}: {error.args[0] if error.args else error}")


def run(argv):
    """`main`, where what is wrong with the user's input ends in a message."""
    show_log()
    try:
        main(argv)
    except (ValueError, FloatingPointError, OSError, tf.errors.OpError) as error:
        if TRACEBACK.value:
            raise
        text = error.message.splitlines()[0] if isinstance(error, tf.errors.OpError) else error
        sys.exit(f"\n{text}\n(--traceback shows where this comes from)")


if __name__ == "__main__":
    app.run(run, flags_parser=parse_flags)
