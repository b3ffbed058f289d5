"""Parts of a long list of embeddings on disk, joined into one .npz in constant memory."""

import io
import json
import os
import zipfile

import numpy as np
import tensorflow as tf

from moco_tf import storage

FACTS = "facts"  # entry of the .npz
ROWS = 1024  # about, in a part


class Parts:
    """The folder OUTPUT.parts/ of the embeddings that are done, in the order of the images.

    Args:
        output: path of the .npz that the parts will be joined to, local or gs://.
        facts: what the embeddings depend on, JSON-ready, for the .npz. Parts with other facts are
            removed. None if they are not known, as to a client.
    """

    def __init__(self, output: str, facts: dict | None = None):
        self.output = output
        self.folder = f"{output}.parts"
        self._constant = {} if facts is None else {FACTS: np.array(json.dumps(facts))}
        self._paths = sorted(tf.io.gfile.glob(os.path.join(self.folder, "*.npz")))
        if self._paths and facts is not None and read_facts(self._paths[0]) != facts:
            tf.io.gfile.rmtree(self.folder)
            self._paths = []
        self._pending = []

    def num_done(self, names: list[str]) -> int:
        """How many of the first names the parts have.

        Raises:
            ValueError: if the parts are of other images.
        """
        done = 0
        for path in self._paths:
            part = _read(path, "name").tolist()
            if part != names[done : done + len(part)]:
                raise ValueError(
                    f"The parts in {self.folder!r} must be of the same images in the same order. "
                    f"Received: others in {os.path.basename(path)}. Remove the folder to start "
                    "from the first image."
                )
            done += len(part)
        return done

    def add(self, outputs: dict[str, np.ndarray]):
        """Adds arrays with one row an image, `name` and `ok` among them, in memory at first."""
        self._pending.append(outputs)
        if sum(len(rows["ok"]) for rows in self._pending) >= ROWS:
            self.flush()

    def flush(self):
        """Writes what was added as the next part."""
        if not self._pending:
            return
        rows = joined(self._pending)
        tf.io.gfile.makedirs(self.folder)
        path = os.path.join(self.folder, f"{len(self._paths):07}.npz")
        content = io.BytesIO()
        np.savez(content, **rows, **self._constant)
        storage.write_bytes(path, content.getvalue())
        self._paths.append(path)
        self._pending = []

    def undecodable(self) -> tuple[int, list[str]]:
        """Number of images that could not be decoded, and the names of the first three."""
        count, such_as = 0, []
        for path in self._paths:
            bad = _read(path, "name")[~_read(path, "ok")]
            count += len(bad)
            such_as = [*such_as, *bad.tolist()][:3]
        return count, such_as

    def join(self) -> dict[str, tuple[int, ...]]:
        """Writes the .npz from all parts, an array at a time, and removes them.

        Returns:
            Shape of each array.
        """
        with _open(self._paths[0]) as first:
            arrays = {name: self._array(name) for name in first if name != FACTS}

        def write(temporary):
            with (
                tf.io.gfile.GFile(temporary, "wb") as file,
                zipfile.ZipFile(_Unseekable(file), "w") as archive,
            ):
                for name, (dtype, shape) in arrays.items():
                    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array_header_1_0(entry, header)
                        for path in self._paths:
                            entry.write(_read(path, name).astype(dtype).tobytes())
                for name, array in self._constant.items():
                    with archive.open(f"{name}.npy", "w") as entry:
                        np.lib.format.write_array(entry, array)

        storage.replace(self.output, write)
        tf.io.gfile.rmtree(self.folder)
        self._paths = []
        return {name: shape for name, (_, shape) in arrays.items()}

    def _array(self, name):
        """Type and shape of an array over all parts; text is as long as its longest."""
        dtypes, rows, rest = set(), 0, ()
        for path in self._paths:
            array = _read(path, name)
            dtypes.add(array.dtype)
            rows += len(array)
            rest = array.shape[1:]
        return np.result_type(*dtypes), (rows, *rest)


def joined(outputs: list[dict]) -> dict[str, np.ndarray]:
    """Concatenates dicts of arrays of the same names."""
    return {name: np.concatenate([rows[name] for rows in outputs]) for name in outputs[0]}


def read_facts(path: str) -> dict | None:
    """What the embeddings of an .npz file depend on; None if it does not say, or is none."""
    try:
        return json.loads(str(_read(path, FACTS)))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, tf.errors.OpError):
        return None


class _Unseekable:
    """A file that only `write` is asked of, since files in gs:// cannot go back."""

    def __init__(self, file):
        self._file = file

    def write(self, content):
        self._file.write(content)
        return len(content)

    def flush(self):
        """Does nothing: the file is closed soon."""


def _read(path, name):
    with _open(path) as arrays:
        return arrays[name]


def _open(path):
    if "://" not in path:
        return np.load(path)
    with tf.io.gfile.GFile(path, "rb") as file:
        return np.load(io.BytesIO(file.read()))
