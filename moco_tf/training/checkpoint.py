"""Checkpoints: saving and exact resuming of model, queue, optimizer and step."""

import hashlib
import json
import os
import pathlib
import re

import keras
import numpy as np
import tensorflow as tf

from moco_tf import distribute, schema, storage
from moco_tf.log import log
from moco_tf.training import rounding
from moco_tf.version import VERSION

# Fields that may change when a run is resumed, because they do not change its results.
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
CONFIG = "config.json"  # in a workdir: config and version of the run
VERSION_KEY = "moco_tf"  # key of the version in config.json; 0.1.0 wrote none
DIGEST_BYTES = 16
STEP = re.compile(r"(.*/checkpoints/step-\d+)(\.index|\.data-\S+)?")
# A workdir with nothing but these has nothing to keep: it is new.
EMPTY_RUN = {CONFIG, "rounding.json", "metrics.jsonl", "tensorboard", "init.json"}
EMPTY_RUN |= {"data.json", "sources", "commands.txt"}
STORAGE_ERRORS = (  # errors that say nothing about the checkpoint itself
    tf.errors.PermissionDeniedError,
    tf.errors.UnauthenticatedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.CancelledError,
)


class Checkpoints:
    """The newest checkpoints of a workdir, and the model's result as a .keras file.

    A kill at any moment leaves the previous checkpoint whole: TensorFlow writes under temporary
    names, renames, and updates the pointer to the newest checkpoint last. Each checkpoint is read
    back after it is written. `restore` skips damaged checkpoints.

    Args:
        model: built and compiled model with a built optimizer.
        result: part of the model for later use, a `keras.Model` such as the query encoder.
        path: file of the result in the workdir, with the extension .keras.
        keep: number of checkpoints to keep. At least 2: the previous checkpoint is removed only
            after the newest was read back.
        write: whether this process saves. Only the chief does; all processes restore.
    """

    def __init__(
        self,
        model: keras.Model,
        result: keras.Model,
        path: str,
        keep: int = 3,
        write: bool = True,
    ):
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
    def latest(self) -> str | None:
        """Path of the newest checkpoint, or None; after `restore`, of the newest whole one."""
        return self._manager.latest_checkpoint

    def restore(self) -> int:
        """Restores the newest whole checkpoint, if there is one.

        Returns:
            Steps done; 0 without a checkpoint.

        Raises:
            ValueError: if all checkpoints are damaged, or workers restored different ones.
        """
        if self._write:
            storage.remove_leftovers(self.path)
        whole = list(self._manager.checkpoints)
        while whole:
            try:
                read(whole[-1])
                break
            except OSError as error:
                log.warning("%s Skipping this checkpoint.", error)
                whole.pop()
        damaged = len(self._manager.checkpoints) - len(whole)
        if damaged and not whole:
            raise ValueError(
                f"A checkpoint must be whole. Received: {damaged} damaged, and no whole one, in "
                f"{self._manager.directory}. Start a new workdir."
            )
        if damaged and self._write:  # damaged checkpoints must not count toward `keep`
            folder = self._manager.directory
            tf.compat.v1.train.update_checkpoint_state(folder, whole[-1], whole)
            self._manager = self._make_manager()
        if whole:
            restore = self._checkpoint.restore
            storage.with_retries(lambda: restore(whole[-1]).assert_existing_objects_matched())
        step = int(self._optimizer.iterations.numpy())
        strategy = self._model.distribute_strategy
        (mean,) = distribute.mean_over_workers(strategy, [step])
        (deviation,) = distribute.mean_over_workers(strategy, [abs(step - mean)])
        if deviation > 0.5 / distribute.num_workers(strategy):
            raise ValueError(
                "All workers must resume at the same step. Received: step "
                f"{step} here, {mean:.1f} on average. Is the workdir a folder that they share?"
            )
        return step

    def save(self):
        """Saves a checkpoint named by its step, unless the newest one is of this step."""
        step = int(self._optimizer.iterations.numpy())
        path = os.path.join(self._manager.directory, f"step-{step}")
        if self._write and self.latest != path:
            # The result comes first: after a kill between the two, the next save writes both.
            storage.save_model(self._result, self.path)
            read(storage.with_retries(lambda: self._manager.save(checkpoint_number=step)))


def read(path: str):
    """Reads a whole checkpoint, and so verifies its checksums.

    Raises:
        OSError: if the checkpoint is damaged.
    """
    storage.with_retries(lambda: _read(path))


def step_path(path: str) -> str | None:
    """The checkpoint that a path names, such as RUN/checkpoints/step-100; None for other paths.

    Example:
        >>> step_path("runs/v2/checkpoints/step-100.index")
        'runs/v2/checkpoints/step-100'
    """
    match = STEP.fullmatch(path.rstrip("/"))
    return match[1] if match else None


def load(path: str, **parts):
    """Sets objects to what a checkpoint saved of them.

    Args:
        path: checkpoint, such as RUN/checkpoints/step-100.
        parts: objects by their names in the checkpoint, such as model=... or optimizer=...

    Raises:
        OSError: if the checkpoint is damaged.
    """
    read(path)
    checkpoint = tf.train.Checkpoint(**parts)
    status = storage.with_retries(lambda: checkpoint.restore(path))
    status.assert_existing_objects_matched().expect_partial()


def _read(path):
    try:
        reader = tf.train.load_checkpoint(path)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, IndexError, RuntimeError) as error:
        if isinstance(error, STORAGE_ERRORS) or storage.is_transient(error):
            raise
        raise OSError(f"The checkpoint {path} is not whole: {error}") from error


def claim_workdir(
    new: dict,
    workdir: str,
    strategy: tf.distribute.Strategy,
    way_on: str = "",
    movable: tuple[str, ...] = (),
):
    """Writes the config to a new workdir, or checks that an old workdir has the same config.

    A workdir without a checkpoint or a result has nothing to keep, and is new.

    Args:
        new: config, as a dict from `schema.to_dict`.
        workdir: local or gs:// folder; the chief makes it.
        strategy: strategy of the run; all its processes must have the same config and code.
        way_on: advice to the user for another config, a sentence.
        movable: fields that may differ besides `FREE_FIELDS`.

    Raises:
        ValueError: as in `check_workdir`, or on every process if one has another config or code.
    """
    path = os.path.join(workdir, CONFIG)
    is_new = is_new_workdir(workdir)
    if distribute.is_chief(strategy) and is_new:
        tf.io.gfile.makedirs(workdir)
        content = {VERSION_KEY: VERSION, **new}
        storage.write_text(path, json.dumps(content, indent=2) + "\n")
        rounding.write(workdir)
    _require_same_on_all_workers(new, path, strategy)
    # After the comparison of workers, in which the others would wait for a worker refused here.
    check_workdir(new, workdir, way_on, movable)
    if distribute.is_chief(strategy) and not is_new:
        rounding.compare(workdir)


def is_new_workdir(workdir: str) -> bool:
    """Whether a workdir does not exist, or holds nothing worth keeping."""
    if not tf.io.gfile.exists(workdir):
        return True
    names = {name.rstrip("/") for name in tf.io.gfile.listdir(workdir)}
    return CONFIG not in names or names <= EMPTY_RUN


def check_workdir(new: dict, workdir: str, way_on: str = "", movable: tuple[str, ...] = ()):
    """Raises ValueError if version 0.1.0 or another config made a workdir.

    Args:
        new: config, as a dict from `schema.to_dict`.
        workdir: local or gs:// folder.
        way_on: advice to the user for another config, a sentence.
        movable: fields that may differ besides `FREE_FIELDS`.
    """
    if is_new_workdir(workdir):
        return
    old = _read_config(os.path.join(workdir, CONFIG))
    if not old.pop(VERSION_KEY, None):
        raise ValueError(
            f"The workdir {workdir!r} was made by moco_tf 0.1.0, whose runs cannot be resumed by "
            f"{VERSION}. Start a new --workdir. The old run's encoder can be evaluated: "
            f"--checkpoint={os.path.join(workdir, 'encoder.keras')}."
        )
    may_differ = {*FREE_FIELDS, *movable}
    differences = [d for d in schema.differences(old, new) if d.split(":")[0] not in may_differ]
    if differences:
        differences = [f"--config.{difference}" for difference in differences]
        free = [f"--config.{name}" for name in FREE_FIELDS if _has_field(new, name)]
        raise ValueError(
            f"The workdir {workdir!r} was made by another config. Differing fields (workdir -> "
            f"now): {'; '.join(differences)}. Use the same config to resume, or another --workdir. "
            + (f"{way_on} " if way_on else "")
            + f"A resumed run may change these fields: {', '.join(free)}."
        )


def _has_field(values, name):
    """Whether a dict of `schema.to_dict` has a field of a dotted name."""
    first, _, rest = name.partition(".")
    return first in values and (not rest or _has_field(values[first], rest))


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

    return storage.with_retries(load)


def _digest(content):
    return hashlib.sha256(content).digest()[:DIGEST_BYTES]


def _code():
    """The package's source code, as bytes."""
    folder = pathlib.Path(__file__).parent.parent
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*.py")))
