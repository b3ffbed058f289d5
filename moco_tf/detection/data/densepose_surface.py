"""DensePose's files about the surface of SMPL, for training and scoring. They need a license.

The files are read as data: the pickle can make arrays of numbers only, and nothing in it is called.

Source: densepose/structures/transform_data.py and densepose/evaluation/densepose_coco_evaluation.py
of detectron2's projects/DensePose.
"""

import dataclasses
import functools
import io
import math
import os
import pickle
import re

import numpy as np
import scipy.io
import tensorflow as tf
from scipy.spatial import cKDTree

from moco_tf.detection.data.densepose import PARTS
from moco_tf.log import log

SYMMETRY = "UV_symmetry_transforms.mat"
VERTICES, TWINS = "SMPL_subdiv.mat", "SMPL_SUBDIV_TRANSFORM.mat"
DISTANCES = "Pdist_matrix.pkl"
FILES = (SYMMETRY, VERTICES, TWINS, DISTANCES)
HOW = (
    "They are derived from SMPL, whose license (smpl.is.tue.mpg.de) you have to accept: get "
    "densepose_uv_data.tar.gz and densepose_eval_data.tar.gz by the scripts get_densepose_uv.sh "
    "and get_eval_data.sh of github.com/facebookresearch/DensePose, unpack both, put "
    f"{', '.join(FILES)} into one folder, and give --config.densepose_files=FOLDER."
)


@dataclasses.dataclass(frozen=True)
class Surface:
    """The vertices of the surface, and the geodesic distances between them.

    Attributes:
        uv: float Vx2, U and V of each vertex.
        part: int V, part of each vertex, 1 to 24.
        twin: int V, 0 to n - 1: vertices on a seam belong to several parts and share one twin.
        distances: float n(n - 1)/2, m, between twins: from i to all j < i, for one i after another.
    """

    uv: np.ndarray
    part: np.ndarray
    twin: np.ndarray
    distances: np.ndarray

    def nearest(self, part: np.ndarray, uv: np.ndarray) -> np.ndarray:
        """The twin of the vertex with the nearest U and V in each point's part.

        Args:
            part: int P; 0 where there is no surface.
            uv: float Px2.

        Returns:
            int64 P; -1 without surface.
        """
        nearest = np.full(len(part), -1)
        for number in np.unique(part[part > 0]):
            rows = part == number
            tree, twins = self._trees[number]
            _, vertices = tree.query(uv[rows])
            nearest[rows] = twins[vertices]
        return nearest

    @functools.cached_property
    def _trees(self):
        """For each part: the tree of its vertices' U and V, and their twins."""
        rows_of = {part: self.part == part for part in range(1, PARTS + 1)}
        return {part: (cKDTree(self.uv[rows]), self.twin[rows]) for part, rows in rows_of.items()}

    def distance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Geodesic distances between twins, m: int P, int P to float64 P; infinite to -1."""
        low = np.minimum(a, b).astype(np.int64)
        high = np.maximum(a, b).astype(np.int64)
        is_apart = (low >= 0) & (low < high)
        distance = np.where(low < 0, np.inf, 0.0)
        distance[is_apart] = self.distances[(high * (high - 1) // 2 + low)[is_apart]]
        return distance


def load(folder: str | None) -> tuple[np.ndarray | None, Surface | None]:
    """Loads the files of a folder.

    Args:
        folder: local or gs:// folder; None or "" logs a warning that says how to get the files.

    Returns:
        symmetry: float32 24x256x256x2, see `densepose.mirrored`; None without a folder.
        surface: `Surface` (1.5 GB, most of it distances); None without a folder.

    Raises:
        ValueError: for files that are missing, broken, or have another content.
    """
    if not folder:
        log.warning(
            "Without DensePose's files, images are not flipped and DensePose gets no score "
            "(GPS). %s",
            HOW,
        )
        return None, None
    paths = {name: os.path.join(os.path.expanduser(folder), name) for name in FILES}
    missing = [name for name, path in paths.items() if not tf.io.gfile.exists(path)]
    if missing:
        raise ValueError(
            f"`--config.densepose_files` must be a folder with {', '.join(FILES)}. Received: "
            f"{folder!r}, without {', '.join(missing)}. {HOW} Or leave it empty, to train without "
            "flips and test without a score."
        )
    u, v = (_matlab(paths[SYMMETRY], f"{name}_transforms") for name in "UV")
    symmetry = _read(paths[SYMMETRY], lambda: np.stack([np.stack([*u]), np.stack([*v])], axis=-1))
    _require(symmetry.shape == (PARTS, 256, 256, 2), paths[SYMMETRY], f"{symmetry.shape}")

    u, v = (_matlab(paths[VERTICES], f"{name}_subdiv") for name in "UV")
    part = _matlab(paths[VERTICES], "Part_ID_subdiv")
    parts = sorted({*part.tolist()})
    is_valid = len(u) == len(v) == len(part) and parts == [*range(1, PARTS + 1)]
    _require(
        is_valid, paths[VERTICES], f"{len(u)}, {len(v)} and {len(part)} numbers, parts {parts}"
    )
    twin = _matlab(paths[TWINS], "index").astype(np.int64) - 1
    distances = _distances(paths[DISTANCES])
    n = (1 + math.isqrt(1 + 8 * len(distances))) // 2
    _require(n * (n - 1) // 2 == len(distances), paths[DISTANCES], f"{len(distances)} distances")
    is_valid = len(twin) == len(part) and twin.min() >= 0 and twin.max() < n
    _require(is_valid, paths[TWINS], f"{len(twin)} of {len(part)} vertices, in {n} with distances")
    surface = Surface(np.stack([u, v], axis=1).astype(float), part.astype(int), twin, distances)
    return symmetry.astype(np.float32), surface


def _require(holds, path, received):
    if not holds:
        raise ValueError(
            f"{path!r} must be the file of DensePose's data. Received: one of another content, "
            f"{received}. Get it again. {HOW}"
        )


def _read(path, function):
    """Calls a function that reads a file, and blames the file for any failure."""
    try:
        return function()
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(
            f"{path!r} must be the file of DensePose's data. Received: one that cannot be read, "
            f"{error or repr(error)}. Get it again. {HOW}"
        ) from error


def _matlab(path, name):
    """A variable of a MATLAB file, flat."""

    def read():
        with tf.io.gfile.GFile(path, "rb") as file:
            return scipy.io.loadmat(io.BytesIO(file.read()), variable_names=[name])[name].ravel()

    return _read(path, read)


def _distances(path):
    def read():
        with tf.io.gfile.GFile(path, "rb") as file:
            content = _Unpickler(file, encoding="bytes").load()  # Python 2 wrote it
        (array,) = [value for key, value in content.items() if key in NAMES]
        return array.array.ravel()

    return _read(path, read)


NAMES = ("Pdist_matrix", b"Pdist_matrix")


class _Type:
    """A type of numbers, in the form in which NumPy pickles it."""

    __slots__ = ("dtype",)

    def __init__(self, code, *_):
        code = code.decode() if isinstance(code, bytes) else code
        if not re.fullmatch("[fiu][1248]", code):
            raise pickle.UnpicklingError(f"an array of {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        order = state[1].decode() if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """An array of numbers, in the form in which NumPy pickles it."""

    __slots__ = ("array",)

    def __init__(self, *_):
        self.array = None

    def __setstate__(self, state):
        _, shape, number_type, fortran, raw = state
        self.array = np.frombuffer(raw, number_type.dtype).reshape(
            shape, order="F" if fortran else "C"
        )


class _Unpickler(pickle._Unpickler):  # the C version would allocate what a file only announces
    """Unpickles containers, numbers, texts and arrays of numbers, and nothing else."""

    def find_class(self, module, name):
        module = module.replace("numpy._core", "numpy.core")  # NumPy 2's name
        allowed = {
            "numpy.core.multiarray._reconstruct": _Array,
            "numpy.ndarray": "ndarray",  # an argument of `_reconstruct`, never called
            "numpy.dtype": _Type,
            "_codecs.encode": lambda text, _: text.encode("latin1"),  # Python 3's bytes
        }
        if f"{module}.{name}" in allowed:
            return allowed[f"{module}.{name}"]
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}, and more than arrays of numbers could run code"
        )
