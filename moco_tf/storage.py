"""Atomic writes of files, and retries on storage that fails for a moment."""

import errno
import hashlib
import os
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from moco_tf.log import log

COPY_BYTES = 1 << 24
WAITS_S = (1, 2, 4, 8, 16, 32)
TRANSIENT = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
)
# TensorFlow raises one class of error for these; only the texts tell them apart.
TEXTS = tuple(
    os.strerror(number)
    for number in (errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT)
)


def with_retries(call: Callable[[], Any]) -> Any:
    """Calls a function, and again while storage fails for a moment.

    Waits 1, 2, 4, ... s between the calls, a minute in all. For gs:// TensorFlow itself retries
    within a call; this is for network file systems, and for longer failures of gs://.

    Args:
        call: function that may be called again after it failed.

    Returns:
        Result of `call`.

    Raises:
        Exception: the last error of `call`, or one that waiting does not help, such as a full disk
            or a missing file.
    """
    for wait_s in WAITS_S:
        try:
            return call()
        except (tf.errors.OpError, OSError) as error:
            if not is_transient(error):
                raise
            log.warning("Storage failed, trying again in %d s: %s", wait_s, error)
        time.sleep(wait_s)
    return call()


def is_transient(error: Exception) -> bool:
    """Whether a storage error may go away on another try."""
    return isinstance(error, TRANSIENT) or any(text in str(error) for text in TEXTS)


def below(folder: str, *names: str) -> str:
    """The path of a file in a folder, by names that come from data.

    Raises:
        ValueError: if the names lead out of the folder.
    """
    name = os.path.join(*names)
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        raise ValueError(
            f"Lists and annotations must name files below {folder!r}. Received: {name!r}."
        )
    return os.path.join(folder, name)


def named_after(folder: str, kind: str, text: str, extension: str) -> str:
    """The path of a file in a folder for what a text describes, such as an address."""
    digest = hashlib.sha256(utf8(text)).hexdigest()[:16]
    return os.path.join(folder, f"{kind}-{digest}{extension}")


def write_text(path: str, text: str):
    """Writes a text file, whole or not at all; bytes of names that are no UTF-8 as \\udcXX."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def utf8(text: str) -> bytes:
    """A path or name of a file as bytes: in UTF-8, or as they are where the name is none."""
    return text.encode(errors="surrogateescape")


def write_bytes(path: str, content: bytes):
    """Writes a file, whole or not at all."""

    def write(temporary):
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(content)

    replace(path, write)


def read_bytes(path: str) -> bytes:
    """The content of a file."""

    return with_retries(lambda: tf.io.read_file(utf8(path)).numpy())


def replace(path: str, write: Callable[[str], Any]):
    """Writes a file, whole or not at all.

    Args:
        path: local or gs:// file.
        write: function that writes the file to a temporary path of the same extension. If it
            raises, `path` stays as it is.
    """
    with_retries(lambda: _replace(path, write))


def write_array(path: str, array: np.ndarray):
    """Writes a .npy file, whole or not at all."""

    def write(temporary):
        with tf.io.gfile.GFile(temporary, "wb") as file:
            np.save(file, array)

    replace(path, write)


def keep_start(path: str, num_bytes: int):
    """Cuts a file to its first bytes. Remote files cannot be cut, so they are written again."""

    def write(temporary):
        with tf.io.gfile.GFile(path, "rb") as old, tf.io.gfile.GFile(temporary, "wb") as new:
            for start in range(0, num_bytes, COPY_BYTES):
                new.write(old.read(min(COPY_BYTES, num_bytes - start)))

    if "://" in path:
        replace(path, write)
    else:
        with_retries(lambda: os.truncate(path, num_bytes))


def save_model(model: keras.Model, path: str):
    """Saves a model as a .keras file, whole or not at all."""
    replace(path, model.save)


def remove_leftovers(path: str):
    """Removes the temporary files of processes that were killed while writing this file."""
    for leftover in tf.io.gfile.glob(_temporary(path, "*")):
        tf.io.gfile.remove(leftover)


def _temporary(path, process):
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{process}-{name}")


def _replace(path, write):
    """Calls `write` with a temporary path of the same extension, and renames the file to `path`."""
    temporary = _temporary(path, os.getpid())
    try:
        write(temporary)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise
