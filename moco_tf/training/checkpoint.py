"""Saving and resuming a run, exactly: model, queue, optimizer and step."""

import hashlib
import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from moco_tf import distribute, schema, storage
from moco_tf.log import log
from moco_tf.version import VERSION

# Fields that may change when a run is resumed: they do not change what it computes.
FREE_FIELDS = (
    "stop_after_steps",
    "profile_steps",
    "steps_per_call",
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "data.max_bad_fraction",
    "max_skipped_steps",
)


CONFIG = "config.json"  # in a workdir, what made it
VERSION_KEY = "moco_tf"  # in config.json, the version that made it; 0.1.0 wrote none
DIGEST_BYTES = 16
OF_STORAGE = (  # errors that say nothing of what is stored
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.CancelledError,
)


class Checkpoints:
    """The checkpoints of a workdir, the last few kept, and what came of it as a .keras file.

    TensorFlow writes under temporary names and renames, and updates the pointer to the newest
    checkpoint last, so that a kill at any moment leaves the one before it. What was written is read
    again; a checkpoint that is damaged later is passed over for the one before it.

    Args:
        model: built and compiled, with a built optimizer.
        result: the part of it that others will use, a `keras.Model` such as the query encoder.
        path: its file, with the ending .keras, in the workdir.
        keep: how many to keep, at least 2: the one before the newest is there until that is read.
        write: whether this process saves (the chief); all restore.
    """

    def __init__(self, model, result, path, keep=3, write=True):
        self.path = path
        self._model, self._optimizer, self._result = model, model.optimizer, result
        self._write, self._keep = write, keep
        self._checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
        self._manager = self._make_manager()

    def _make_manager(self):
        folder = os.path.join(os.path.dirname(self.path), "checkpoints")
        return tf.train.CheckpointManager(
            self._checkpoint, folder, max_to_keep=self._keep, checkpoint_name="step"
        )

    @property
    def latest(self):
        """Path of the newest checkpoint, or None; after `restore`, of the newest whole one."""
        return self._manager.latest_checkpoint

    def restore(self):
        """Restores the newest whole checkpoint, if there is any; returns the number of steps done.

        Raises:
            ValueError: if all are damaged, or workers found different ones.
        """
        if self._write:
            storage.remove_leftovers(self.path)
        whole = list(self._manager.checkpoints)
        while whole:
            try:
                read(whole[-1])
                break
            except OSError as error:
                log.warning("%s It is passed over.", error)
                whole.pop()
        damaged = len(self._manager.checkpoints) - len(whole)
        if damaged and not whole:
            raise ValueError(
                f"A checkpoint must be whole. Received: {damaged} damaged, and no other, in "
                f"{self._manager.directory}. Start a new workdir."
            )
        if damaged and self._write:  # those passed over must not count among those to keep
            folder = self._manager.directory
            tf.compat.v1.train.update_checkpoint_state(folder, whole[-1], whole)
            self._manager = self._make_manager()
        if whole:
            restore = self._checkpoint.restore
            storage.patiently(lambda: restore(whole[-1]).assert_existing_objects_matched())
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
            # First: a kill between the two is made good by the next save.
            storage.save_model(self._result, self.path)
            read(storage.patiently(lambda: self._manager.save(checkpoint_number=step)))


def read(path):
    """Reads all of a checkpoint, whose parts have checksums.

    Raises:
        OSError: if it is not whole.
    """
    storage.patiently(lambda: _read(path))


def _read(path):
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:
        if isinstance(error, OF_STORAGE) or storage.is_of_the_moment(error):
            raise
        raise OSError(f"The checkpoint {path} is not whole: {error}") from error


def claim_workdir(new, workdir, strategy):
    """Notes the config in the workdir, which the chief makes, or checks that it is as before.

    Args:
        new: the config, of `schema.to_dict`.
        workdir: local or gs:// folder.
        strategy: of `strategies.make_strategy`, whose processes must all have this config and code.

    Raises:
        ValueError: as `check_workdir`; or on every process if one has another config or code.
    """
    path = os.path.join(workdir, CONFIG)
    if distribute.is_chief(strategy) and not tf.io.gfile.exists(path):
        tf.io.gfile.makedirs(workdir)
        content = {VERSION_KEY: VERSION, **new}
        storage.write_text(path, json.dumps(content, indent=2) + "\n")
    _require_same_on_all_workers(new, path, strategy)
    check_workdir(new, workdir)  # after it, as the others wait there for a worker refused here


def check_workdir(new, workdir):
    """Raises ValueError if 0.1.0 or another config made this workdir; it names what differs."""
    old = _read_config(os.path.join(workdir, CONFIG)) or {VERSION_KEY: VERSION, **new}
    if not old.pop(VERSION_KEY, None):
        raise ValueError(
            f"The workdir {workdir!r} was made by moco_tf 0.1.0, whose runs cannot be resumed by "
            f"{VERSION}. Start a new --workdir. What came of the old one can be evaluated: "
            f"--checkpoint={os.path.join(workdir, 'encoder.keras')}."
        )
    differences = [d for d in schema.differences(old, new) if d.split(":")[0] not in FREE_FIELDS]
    if differences:
        raise ValueError(
            f"The workdir {workdir!r} was made by another config. Differing fields (there -> "
            f"now): {'; '.join(differences)}. Use the same config to resume, or another --workdir."
        )


def _require_same_on_all_workers(new, path, strategy):
    digests = [*_digest(json.dumps(new, sort_keys=True).encode()), *_digest(_code())]
    # This also waits until the chief has written its config.
    different = distribute.mean_over_workers(strategy, digests) != np.array(digests, np.float32)
    if not different.any():
        return
    config_in_workdir = _read_config(path) or new
    fields = schema.differences(
        {k: v for k, v in config_in_workdir.items() if k != VERSION_KEY}, new
    )
    raise ValueError(
        "All workers must run the same config and the same version of moco_tf. Received: "
        + (f"here (workdir -> here): {'; '.join(fields)}." if fields else "another one elsewhere.")
        + (" The versions differ." if different[DIGEST_BYTES:].any() else "")
    )


def _read_config(path):
    if not tf.io.gfile.exists(path):
        return None

    def load():
        with tf.io.gfile.GFile(path) as file:
            return json.load(file)

    return storage.patiently(load)


def _digest(content):
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def _code():
    """All of the package's source."""
    folder = pathlib.Path(__file__).parent.parent
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py")))
