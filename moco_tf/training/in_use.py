"""Keeps two processes from writing to one workdir."""

import contextlib
import errno
import os
from collections.abc import Iterator

import tensorflow as tf

from moco_tf import distribute

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

# What network file systems say that cannot lock a folder; there, nothing is held.
WITHOUT_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def held(workdir: str, strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Holds a workdir for the process, the chief's, until the block ends or the process does.

    The folder itself is locked, so that a kill leaves nothing behind. Processes on other machines,
    in gs:// and on Windows are not seen.

    Args:
        workdir: local or gs:// folder, made if it does not exist.
        strategy: strategy of the run.

    Raises:
        ValueError: if another process holds the workdir.

    Example:
        with held("runs/v2", strategy):
            ...  # write to it
    """
    if fcntl is None or "://" in workdir or not distribute.is_chief(strategy):
        yield
        return
    os.makedirs(workdir, exist_ok=True)
    folder = os.open(workdir, os.O_RDONLY)
    try:
        _lock(folder, workdir)
        yield
    finally:
        os.close(folder)


def _lock(folder, workdir):
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(
            f"No other process may write to the workdir. Received: {workdir!r}, in which one runs "
            "now. Wait for its end, stop it (Ctrl-C saves first), or use another --workdir."
        ) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
