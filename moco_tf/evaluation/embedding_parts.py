"""Parts of a long list of embeddings on disk, joined into one file in constant memory."""

import io
import json
import os
import zipfile

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.evaluation import parquet

FACTS = "facts"  # entry of an .npz
FORMATS = (".npz", ".parquet")
ROWS = 1024  # about, in a part


class Parts:
    """The folder OUTPUT.parts/ of the embeddings that are done, in the order of the images.

    Args:
        output: path of the file that the parts will be joined to: .npz, local or gs://, or a local
            .parquet.
        facts: what the embeddings depend on, JSON-ready, for the file. Parts with other facts are
            removed. None if they are not known, as to a client.

    Raises:
        ValueError: for an output of another form.
    """

    def __init__(self, output: str, facts: dict | None = None):
        check_output(output)
        self.output = output
        self._facts = facts
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
        """Writes the file from all parts, and removes them.

        Returns:
            Shape of each array.
        """
        with _open(self._paths[0]) as first:
            arrays = {name: self._array(name) for name in first if name != FACTS}

        if self.output.endswith(".parquet"):
            parts = ({name: _read(path, name) for name in arrays} for path in self._paths)
            storage.replace(self.output, lambda path: parquet.write(path, parts, self._facts))
        else:
            storage.replace(self.output, lambda path: self._write_npz(path, arrays))
        tf.io.gfile.rmtree(self.folder)
        self._paths = []
        return {name: shape for name, (_, shape) in arrays.items()}

    def _write_npz(self, path, arrays):
        """Writes arrays, by their types and shapes, one at a time."""
        with (
            tf.io.gfile.GFile(path, "wb") as file,
            zipfile.ZipFile(_Unseekable(file), "w") as archive,
        ):
            for name, (dtype, shape) in arrays.items():
                header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array_header_1_0(entry, header)
                    for part in self._paths:
                        entry.write(_read(part, name).astype(dtype).tobytes())
            for name, array in self._constant.items():
                with archive.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, array)

    def _array(self, name):
        """Type and shape of an array over all parts; text is as long as its longest."""
        dtypes, rows, rest = set(), 0, ()
        for path in self._paths:
            array = _read(path, name)
            dtypes.add(array.dtype)
            rows += len(array)
            rest = array.shape[1:]
        return np.result_type(*dtypes), (rows, *rest)


def check_output(output: str):
    """Raises ValueError unless embeddings can be written to a path."""
    if not output.endswith(FORMATS) or ("://" in output and output.endswith(".parquet")):
        raise ValueError(
            f"`--output` must be an .npz file, or a local .parquet file. Received: {output!r}."
        )


def joined(outputs: list[dict]) -> dict[str, np.ndarray]:
    """Concatenates dicts of arrays of the same names."""
    return {name: np.concatenate([rows[name] for rows in outputs]) for name in outputs[0]}


def read_file(path: str) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of a file of embeddings, and what they depend on, {} if it does not say.

    Raises:
        ValueError: for another file.
    """
    try:
        if path.endswith(".parquet"):
            return parquet.read(path)
        with _open(path) as file:
            arrays = {name: file[name] for name in file}
    except (OSError, ValueError, zipfile.BadZipFile, tf.errors.OpError) as error:
        raise ValueError(
            "Embeddings must be a file that `embed` or `client` has written, .npz or .parquet. "
            f"Received: {path!r} ({error})."
        ) from error
    return arrays, json.loads(str(arrays.pop(FACTS, "{}")))


def read_facts(path: str) -> dict | None:
    """What the embeddings of a file depend on; None if it does not say, or is none."""
    try:
        if path.endswith(".parquet"):
            return parquet.read_facts(path) or None
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
