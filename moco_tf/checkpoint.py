"""Saving and resuming a run, exactly: model, queue, optimizer and step."""

import json
import os

import tensorflow as tf

from moco_tf import distribute, schema

# Fields that may change when a run is resumed: they do not change what it computes.
FREE_FIELDS = (
    *("stop_after_steps", "profile_steps", "steps_per_call"),
    *("log_every_steps", "checkpoint_every_steps", "keep_checkpoints"),
    "data.max_bad_fraction",
)


class Checkpoints:
    """The checkpoints of a workdir, the last few kept, and what came of it as a .keras file.

    TensorFlow writes under temporary names and renames, and updates the pointer to the newest
    checkpoint last, so that a kill at any moment leaves the one before it.

    Args:
        model: built and compiled, with a built optimizer.
        result: the part of it that others will use, a `keras.Model` such as the query encoder.
        path: its file, with the ending .keras, in the workdir.
        keep: how many to keep.
        write: whether this process saves (the chief); all restore.
    """

    def __init__(self, model, result, path, keep=3, write=True):
        self.path = path
        self._model, self._optimizer, self._result = model, model.optimizer, result
        self._write = write
        self._manager = tf.train.CheckpointManager(
            tf.train.Checkpoint(model=model, optimizer=model.optimizer),
            os.path.join(os.path.dirname(path), "checkpoints"),
            max_to_keep=keep,
            checkpoint_name="step",
        )

    @property
    def latest(self):
        """Path of the newest whole checkpoint, or None."""
        return self._manager.latest_checkpoint

    def restore(self):
        """Restores the newest checkpoint, if there is one; returns the number of steps done.

        Raises:
            ValueError: if workers found different checkpoints.
        """
        if self.latest:
            self._manager.checkpoint.restore(self.latest).assert_existing_objects_matched()
        step = int(self._optimizer.iterations.numpy())
        strategy = self._model.distribute_strategy
        (mean,) = distribute.mean_over_workers(strategy, [step])
        (deviation,) = distribute.mean_over_workers(strategy, [abs(step - mean)])
        if deviation > 0.5 / distribute.num_workers(strategy):
            raise ValueError(
                "All workers must resume at the same step. Is the workdir a folder that they "
                f"share? Received: step {step} here, {mean:.1f} on average."
            )
        return step

    def save(self):
        """Saves the present state, named by its step, unless it is the newest saved already."""
        step = int(self._optimizer.iterations.numpy())
        path = os.path.join(self._manager.directory, f"step-{step}")
        if self._write and self.latest != path:
            save_model(
                self._result, self.path
            )  # first: a kill between the two is made good by the next save
            self._manager.save(checkpoint_number=step)


def claim_workdir(new, workdir, write=True):
    """Makes the workdir and notes the config in it, or checks that it is the same as before.

    Args:
        new: the config, of `schema.to_dict`.
        workdir: local or gs:// folder.
        write: whether this process writes (the chief).

    Raises:
        ValueError: if another config made this workdir; it names the differing fields.
    """
    path = os.path.join(workdir, "config.json")
    if not tf.io.gfile.exists(path):
        if write:
            tf.io.gfile.makedirs(workdir)
            write_text(path, json.dumps(new, indent=2) + "\n")
        return
    with tf.io.gfile.GFile(path) as file:
        old = json.load(file)
    differences = [d for d in schema.differences(old, new) if d.split(":")[0] not in FREE_FIELDS]
    if differences:
        raise ValueError(
            f"The workdir {workdir!r} was made by another config. Differing fields (there -> "
            f"now): {'; '.join(differences)}. Use the same config to resume, or another --workdir."
        )


def write_text(path, text):
    """Writes a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path, content):
    """Writes a file whole or not at all."""

    def write(temporary):
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(content)

    _replace(path, write)


def save_model(model, path):
    """Saves a `keras.Model` as a .keras file whole or not at all."""
    _replace(path, model.save)


def _replace(path, write):
    """Replaces a file by what `write` makes under another name, which has the same ending."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{os.getpid()}-{name}")
    try:
        write(temporary)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise
