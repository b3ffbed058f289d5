"""What the scripts share: flags, and mistakes of the user that end in a message."""

import sys

import tensorflow as tf
from absl import app, flags
from ml_collections import config_flags

from moco_tf import distribute
from moco_tf.log import log, show_log

CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe, a file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, local or gs://.")
STRATEGY = flags.DEFINE_enum("strategy", "auto", distribute.STRATEGIES, "tf.distribute strategy.")
TPU = flags.DEFINE_string("tpu", None, "Name of the TPU; on a TPU VM leave it out.")
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error comes from.")


def run(main, check, prepare=list):
    """Runs a script.

    Args:
        main: function of the arguments that are no flags.
        check: function of the same that raises ValueError for wrong flags, before any work.
        prepare: function from the command line to the one that is parsed.
    """

    def parse(argv):
        try:
            rest = flags.FLAGS(prepare(argv))
            check(rest[1:])
            return rest
        except (flags.Error, AttributeError, KeyError, OSError, ValueError) as error:
            sys.exit(f"{argv[0]}: {error.args[0] if error.args else error}")

    def guarded(argv):
        show_log()
        try:
            main(argv[1:])
        except (ValueError, FloatingPointError, OSError, tf.errors.OpError) as error:
            if TRACEBACK.value:
                raise
            text = error.message.splitlines()[0] if isinstance(error, tf.errors.OpError) else error
            sys.exit(f"\n{text}\n(--traceback shows where this comes from)")

    app.run(guarded, flags_parser=parse)


def only_flags(rest):
    """Raises ValueError if there are arguments that are no flags."""
    if rest:
        raise ValueError(f"Unknown arguments: {' '.join(rest)}. Flags start with --.")


def require_workdir():
    """The workdir; raises ValueError without one."""
    if not WORKDIR.value:
        raise ValueError("`--workdir` must name a folder for the run, such as runs/v2.")
    return WORKDIR.value


def start(config):
    """The strategy that the flags ask for, with the config's determinism.

    Raises:
        ValueError: for devices that are not there.
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return distribute.make_strategy(STRATEGY.value, TPU.value)


def stopped(step):
    """Ends a script whose run SIGTERM ended after a step."""
    log.warning("Stopped by SIGTERM after step %d, saved. The same command resumes.", step)
    sys.exit(128 + 15)
