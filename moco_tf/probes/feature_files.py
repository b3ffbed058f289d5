"""Features of many images on disk: files of some thousand rows each, read as one array.

Each file is whole or absent, so that an extraction that was stopped goes on with the missing ones.
"""

import functools

import numpy as np
import tensorflow as tf

from moco_tf import storage

ROWS = 8192  # about, in a file: 64 MB of 2,048 features
OPEN_FILES = 256  # memory maps at a time


class Rows:
    """A float32 NxC array in several files, of which only the rows asked for are read.

    Index it by a slice or by an array of numbers; both copy the rows into memory.

    Args:
        paths: .npy files, local or gs://, each but the last with `rows_per_file` rows. Local files
            are read as memory maps, others are read whole and held.
        rows_per_file: number of rows.
        num_rows: N.
        numbers: int array, the rows that this array has of them; None: all.

    Example:
        >>> np.save("x.npy", np.float32([[1, 2], [3, 4], [5, 6]]))
        >>> Rows(["x.npy"], rows_per_file=3, num_rows=3)[[2, 0]].tolist()
        [[5.0, 6.0], [1.0, 2.0]]
    """

    def __init__(
        self,
        paths: list[str],
        rows_per_file: int,
        num_rows: int,
        numbers: np.ndarray | None = None,
    ):
        is_remote = "://" in paths[0]
        self._file = functools.lru_cache(None if is_remote else OPEN_FILES)(_load)
        self._paths, self._rows_per_file, self._num_rows = paths, rows_per_file, num_rows
        self._numbers = numbers
        first = self._file(paths[0])
        self.shape = (num_rows if numbers is None else len(numbers), *first.shape[1:])
        self.dtype = first.dtype
        self.ndim = first.ndim

    def __len__(self):
        return self.shape[0]

    def at(self, numbers: np.ndarray) -> "Rows":
        """The array of some rows, by their numbers, without reading them."""
        numbers = np.asarray(numbers)
        if self._numbers is not None:
            numbers = self._numbers[numbers]
        return Rows(self._paths, self._rows_per_file, self._num_rows, numbers)

    def __getitem__(self, key) -> np.ndarray:
        if isinstance(key, slice):
            numbers = np.arange(*key.indices(len(self)))
        else:
            numbers = np.asarray(key)
            if numbers.dtype == bool:
                numbers = np.flatnonzero(numbers)
        if self._numbers is not None:
            numbers = self._numbers[numbers]
        if numbers.ndim == 0:
            return self._read(numbers[None])[0]
        return self._read(numbers)

    def __array__(self, dtype=None, copy=None):
        return self[:].astype(dtype or self.dtype, copy=False)

    def _read(self, numbers):
        rows = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        files = numbers // self._rows_per_file
        order = np.argsort(files, kind="stable")
        bounds = np.flatnonzero(np.diff(files[order])) + 1
        for places in np.split(order, bounds):
            if len(places):
                file = int(files[places[0]])
                within = numbers[places] - file * self._rows_per_file
                rows[places] = self._file(self._paths[file])[within]
        return rows


class FeatureFiles:
    """The files PREFIX-NAME-FILE.npy of a set of images, with NAME x0, x1, ..., label and ok.

    Args:
        prefix: beginning of the files' paths, local or gs://.
        num_examples: number of images.
        batch: rows that are computed at a time. Files hold whole batches, so that rows are
            computed in the same batches, and to the same bits, if an extraction is stopped.
    """

    def __init__(self, prefix: str, num_examples: int, batch: int):
        self.rows = max(ROWS // batch, 1) * batch
        self.prefix = f"{prefix}-{self.rows}"
        self.num_examples = num_examples
        self.num_files = -(-num_examples // self.rows)

    def path(self, name: str, number: int) -> str:
        """Path of file `number` of an output."""
        return f"{self.prefix}-{name}-{number:05}.npy"

    def bounds(self, number: int) -> tuple[int, int]:
        """The numbers of a file's first image, and of the one after its last."""
        return number * self.rows, min((number + 1) * self.rows, self.num_examples)

    def missing(self) -> list[int]:
        """Numbers of the files that are yet to be written."""
        written = set(tf.io.gfile.glob(f"{self.prefix}-ok-*.npy"))
        return [n for n in range(self.num_files) if self.path("ok", n) not in written]

    def write(self, number: int, outputs: dict[str, np.ndarray]):
        """Writes the rows of a file; `ok` last, which says that it is whole."""
        for name in sorted(outputs, key=lambda name: name == "ok"):
            path = self.path(name, number)
            storage.remove_leftovers(path)  # of a process that was killed
            storage.write_array(path, outputs[name])

    def names(self) -> list[str]:
        """Names of the network's outputs: x0, x1, ..."""
        names = []
        while tf.io.gfile.exists(self.path(f"x{len(names)}", 0)):
            names.append(f"x{len(names)}")
        return names

    def rows_of(self, name: str) -> Rows:
        """The array of an output."""
        paths = [self.path(name, n) for n in range(self.num_files)]
        return Rows(paths, self.rows, self.num_examples)


def _load(path):
    if "://" not in path:
        return np.load(path, mmap_mode="r")
    with tf.io.gfile.GFile(path, "rb") as file:
        return np.load(file)
