"""Record of the commands that a run was started and resumed by, for its report."""

import os

import tensorflow as tf

from moco_tf import distribute, storage
from moco_tf.training.checkpoint import is_new_workdir

RECORD = "commands.txt"  # in a workdir: a command a line


def read(workdir: str) -> list[str]:
    """The commands of a workdir, oldest first; [] if it was made without one."""
    path = os.path.join(workdir, RECORD)
    if not tf.io.gfile.exists(path):
        return []
    return storage.read_bytes(path).decode().splitlines()


def add(workdir: str, command: str, strategy: tf.distribute.Strategy):
    """Adds a command to a claimed workdir, if it is not there yet; only the chief does."""
    if not distribute.is_chief(strategy):
        return
    commands = [] if is_new_workdir(workdir) else read(workdir)
    if command not in commands:
        storage.write_text(os.path.join(workdir, RECORD), "\n".join([*commands, command]) + "\n")
