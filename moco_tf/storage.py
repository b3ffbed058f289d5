"""Files that are written whole or not at all, on storage that may fail for a moment."""

import errno
import os
import time

import tensorflow as tf

from moco_tf.log import log

WAITS_S = (1, 2, 4, 8, 16, 32)
OF_THE_MOMENT = (
    *(tf.errors.UnavailableError, tf.errors.DeadlineExceededError, tf.errors.AbortedError),
)
# TensorFlow has one error for these, which gives only their texts.
TEXTS = tuple(
    os.strerror(number)
    for number in (errno.EIO, errno.EAGAIN, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT)
)


def patiently(call):
    """The result of `call()`, which is tried again while storage fails for a moment.

    It waits 1, 2, 4, ... s between, a minute in all. TensorFlow does likewise within a call for
    gs://; this is for network file systems, and for what takes longer there.

    Args:
        call: function without arguments that may be called again after it failed.

    Raises:
        What `call` raised: the last time, or an error that waiting does not help, such as a full
        disk or a missing file.
    """
    for wait_s in WAITS_S:
        try:
            return call()
        except (tf.errors.OpError, OSError) as error:
            if not is_of_the_moment(error):
                raise
            log.warning("Storage failed, trying again in %d s: %s", wait_s, error)
        time.sleep(wait_s)
    return call()


def is_of_the_moment(error):
    """Whether an error of storage may be gone when the same is tried again."""
    return isinstance(error, OF_THE_MOMENT) or any(text in str(error) for text in TEXTS)


def below(folder, *names):
    """The path of a file in a folder, by names that come from data.

    Raises:
        ValueError: if they lead out of the folder.
    """
    name = os.path.join(*names)
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        raise ValueError(
            f"Lists and annotations must name files below {folder!r}. Received: {name!r}."
        )
    return os.path.join(folder, name)


def write_text(path, text):
    """Writes a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path, content):
    """Writes a file whole or not at all."""

    def write(temporary):
        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(content)

    patiently(lambda: _replace(path, write))


def save_model(model, path):
    """Saves a `keras.Model` as a .keras file whole or not at all."""
    patiently(lambda: _replace(path, model.save))


def remove_leftovers(path):
    """Removes what processes left that were killed as they wrote this file."""
    for leftover in tf.io.gfile.glob(_temporary(path, "*")):
        tf.io.gfile.remove(leftover)


def _temporary(path, process):
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{process}-{name}")


def _replace(path, write):
    """Replaces a file by what `write` makes under another name, which has the same ending."""
    temporary = _temporary(path, os.getpid())
    try:
        write(temporary)
        tf.io.gfile.rename(temporary, path, overwrite=True)
    except BaseException:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.remove(temporary)
        raise
