"""The files about SMPL's surface that DensePose is trained and scored with; they have a licence.

They are read as data: of the pickle only arrays of numbers are made, nothing in it is called.

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
    "They are derived from SMPL, whose licence (smpl.is.tue.mpg.de) you have to accept: get "
    "densepose_uv_data.tar.gz and densepose_eval_data.tar.gz by the scripts get_densepose_uv.sh "
    "and get_eval_data.sh of github.com/facebookresearch/DensePose, unpack both, put "
    f"{', '.join(FILES)} into one folder, and give --config.densepose_files=FOLDER."
)


@dataclasses.dataclass(frozen=True)
class Surface:
    """The vertices of the surface, and how far they are from each other on it.

    Attributes:
        uv: float Vx2, U and V of each.
        part: int V, 1 to 24.
        twin: int V, 0 to n - 1: vertices on a seam are in several parts, with one twin.
        distances: float n(n - 1)/2, geodesic, m: of i to all j < i, for one i after another.
    """

    uv: np.ndarray
    part: np.ndarray
    twin: np.ndarray
    distances: np.ndarray

    def nearest(self, part, uv):
        """The twin of the vertex with the nearest U and V in each point's part.

        Args:
            part: int P; 0 where there is no surface.
            uv: float Px2.

        Returns:
            int64 P; -1 without surface.
        """
        found = np.full(len(part), -1)
        for own in np.unique(part[part > 0]):
            rows = part == own
            tree, twins = self._trees[own]
            found[rows] = twins[tree.query(uv[rows])[1]]
        return found

    @functools.cached_property
    def _trees(self):
        """For each part: the tree of its vertices' U and V, and their twins."""
        own = {part: self.part == part for part in range(1, PARTS + 1)}
        return {part: (cKDTree(self.uv[rows]), self.twin[rows]) for part, rows in own.items()}

    def distance(self, a, b):
        """Between vertices as `nearest` has them, m: int P, int P to float64 P; to -1 infinite."""
        low, high = np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64)
        apart = (low >= 0) & (low < high)
        found = np.where(low < 0, np.inf, 0.0)
        found[apart] = self.distances[(high * (high - 1) // 2 + low)[apart]]
        return found


def load(folder):
    """The files of a folder.

    Args:
        folder: local or gs://; "" if there is none, which is said.

    Returns:
        `(symmetry, surface)`: float32 24x256x256x2, as of `densepose.mirrored`, and `Surface`
        (1.5 GB, most of it distances); None, None without a folder.

    Raises:
        ValueError: for files that are missing, broken or not as they should be.
    """
    if not folder:
        log.warning(
            "Without DensePose's files images are not flipped, and what is predicted gets no score "
            "(GPS). %s",
            HOW,
        )
        return None, None
    paths = {name: os.path.join(os.path.expanduser(folder), name) for name in FILES}
    missing = [name for name, path in paths.items() if not tf.io.gfile.exists(path)]
    if missing:
        raise ValueError(
            f"`config.densepose_files` must be a folder with {', '.join(FILES)}. Received: "
            f"{folder!r}, without {', '.join(missing)}. {HOW} Or leave it empty, to train without "
            "flips and test without a score."
        )
    u, v = (_matlab(paths[SYMMETRY], f"{name}_transforms") for name in "UV")
    symmetry = _read(paths[SYMMETRY], lambda: np.stack([np.stack([*u]), np.stack([*v])], axis=-1))
    _require(symmetry.shape == (PARTS, 256, 256, 2), paths[SYMMETRY], f"{symmetry.shape}")

    u, v = (_matlab(paths[VERTICES], f"{name}_subdiv") for name in "UV")
    part = _matlab(paths[VERTICES], "Part_ID_subdiv")
    parts = sorted({*part.tolist()})
    right = len(u) == len(v) == len(part) and parts == [*range(1, PARTS + 1)]
    _require(right, paths[VERTICES], f"{len(u)}, {len(v)} and {len(part)} numbers, parts {parts}")
    twin = _matlab(paths[TWINS], "index").astype(np.int64) - 1
    distances = _distances(paths[DISTANCES])
    n = (1 + math.isqrt(1 + 8 * len(distances))) // 2
    _require(n * (n - 1) // 2 == len(distances), paths[DISTANCES], f"{len(distances)} distances")
    right = len(twin) == len(part) and twin.min() >= 0 and twin.max() < n
    _require(right, paths[TWINS], f"{len(twin)} of {len(part)} vertices, in {n} with distances")
    surface = Surface(np.stack([u, v], axis=1).astype(float), part.astype(int), twin, distances)
    return symmetry.astype(np.float32), surface


def _require(holds, path, received):
    if not holds:
        raise ValueError(
            f"{path!r} must be the file of DensePose's data. Received: one of another content, "
            f"{received}. Get it again. {HOW}"
        )


def _read(path, function):
    """Calls a function that reads, whose failure is the file's."""
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
        (found,) = [value for key, value in content.items() if key in NAMES]
        return found.array.ravel()

    return _read(path, read)


NAMES = ("Pdist_matrix", b"Pdist_matrix")


class _Type:
    """A type of numbers, as NumPy pickles it."""

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
    """An array of numbers, likewise."""

    __slots__ = ("array",)

    def __init__(self, *_):
        self.array = None

    def __setstate__(self, state):
        _, shape, kind, fortran, raw = state
        self.array = np.frombuffer(raw, kind.dtype).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle._Unpickler):  # in C it would allocate what a file only announces
    """Unpickles containers, numbers, texts and arrays of numbers."""

    def find_class(self, module, name):
        module = module.replace("numpy._core", "numpy.core")  # NumPy 2's name
        allowed = {
            "numpy.core.multiarray._reconstruct": _Array,
            "numpy.ndarray": "ndarray",  # an argument of the former, never called
            "numpy.dtype": _Type,
            "_codecs.encode": lambda text, _: text.encode("latin1"),  # Python 3's bytes
        }
        if f"{module}.{name}" in allowed:
            return allowed[f"{module}.{name}"]
        raise pickle.UnpicklingError(
            f"it asks for {module}.{name}, and more than arrays of numbers could run code"
        )
