"""What the scripts share: flags, and mistakes of the user that end in a message."""

import sys

import tensorflow as tf
from absl import app, flags
from ml_collections import config_flags

from moco_tf import distribute
from moco_tf.log import show_log

CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, a file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, local or gs://.")
STRATEGY = flags.DEFINE_enum("strategy", "auto", distribute.STRATEGIES, "tf.distribute strategy.")
TPU = flags.DEFINE_string("tpu", None, "Name of the TPU; on a TPU VM leave it out.")
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error comes from.")


def run(main, check, prepare=list):
    """Runs a script.

    Args:
        main: function without arguments.
        check: function without arguments that raises ValueError for wrong flags, before any work.
        prepare: function from the command line to the one that is parsed.
    """

    def parse(argv):
        try:
            rest = flags.FLAGS(prepare(argv))
            if len(rest) > 1:
                raise flags.Error(f"Unknown arguments: {' '.join(rest[1:])}. Flags start with --.")
            check()
            return rest
        except (flags.Error, AttributeError, KeyError, OSError, ValueError) as error:
            sys.exit(f"{argv[0]}: {error.args[0] if error.args else error}")

    def guarded(_):
        show_log()
        try:
            main()
        except (ValueError, FloatingPointError, OSError, tf.errors.OpError) as error:
            if TRACEBACK.value:
                raise
            text = error.message.splitlines()[0] if isinstance(error, tf.errors.OpError) else error
            sys.exit(f"\n{text}\n(--traceback shows where this comes from)")

    app.run(guarded, flags_parser=parse)


def start(config):
    """The strategy that the flags ask for, with the config's determinism.

    Raises:
        ValueError: without a workdir, or for devices that are not there.
    """
    if not WORKDIR.value:
        raise ValueError("`--workdir` must name a folder for the run, such as runs/v2.")
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return distribute.make_strategy(STRATEGY.value, TPU.value)


def stopped(step):
    """Ends a script whose run SIGTERM ended at `step`."""
    print(f"Stopped by SIGTERM after step {step}, saved. The same command resumes.")
    sys.exit(128 + 15)
