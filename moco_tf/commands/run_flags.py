"""The flags of the scripts that compute on a strategy and leave a workdir."""

import tensorflow as tf
from absl import flags

from moco_tf import strategies
from moco_tf.commands import config_flag

CONFIG = config_flag.define("Recipe, a file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, local or gs://.")
STRATEGY = flags.DEFINE_enum("strategy", "auto", strategies.STRATEGIES, "tf.distribute strategy.")
TPU = flags.DEFINE_string("tpu", None, "Name of the TPU; on a TPU VM leave it out.")


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
    return strategies.make_strategy(STRATEGY.value, TPU.value)
