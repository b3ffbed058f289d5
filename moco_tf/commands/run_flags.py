"""Flags of train, evaluate and ablate: --config, --workdir, --strategy, --tpu."""

import os
from typing import Any

import tensorflow as tf
from absl import flags

from moco_tf import strategies
from moco_tf.commands import config_flag

CONFIG = config_flag.define("Config file, or the name of a file in configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, local or gs://.")
STRATEGY = flags.DEFINE_enum("strategy", "auto", strategies.STRATEGIES, "tf.distribute strategy.")
TPU = flags.DEFINE_string("tpu", None, "Name of the TPU; on a TPU VM leave it out.")
flags.DEFINE_bool("print_config", False, "Print the config as flags, and do nothing else.")


def require_workdir() -> str:
    """The value of --workdir; raises ValueError if it is missing or the name of a file."""
    workdir = WORKDIR.value
    if not workdir or os.path.isfile(workdir):
        received = f" Received: {workdir!r}, a file." if workdir else ""
        raise ValueError(f"`--workdir` must name a folder for the run, such as runs/v2.{received}")
    return workdir


def start(config: Any) -> tf.distribute.Strategy:
    """Makes the strategy of the flags, and sets the config's determinism.

    Args:
        config: config of the run, with `deterministic`.

    Raises:
        ValueError: if the strategy's devices do not exist.
    """
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    return strategies.make_strategy(STRATEGY.value, TPU.value)
