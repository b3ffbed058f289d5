"""Drawn persons with DensePose annotations, and a made-up surface in the form of its files.

A drawn person is a rectangle: its left half is part 3 (label 2), its right half part 4 (label 3),
which are each other's mirror images; U grows from left to right and V downwards, from 0 to 1.
"""

import pickle

import numpy as np
import scipy.io
from detection_sets import annotation, write_coco
from pycocotools import mask as coco_mask

CATEGORIES = ({"id": 1, "name": "person"},)


def law(x, y):
    """Part, label, U and V at shares of a person's width and height."""
    left = np.asarray(x) < 0.5
    return np.where(left, 3, 4), np.where(left, 2, 3), x, y


def person(image, box, count=20, seed=0, **more):
    """The record of a drawn person, with `count` points."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.02, 0.98, (2, count))
    part, _, u, v = law(x, y)
    halves = np.zeros((2, 256, 256), np.uint8, "C")
    halves[0, :, :128] = 1
    halves[1, :, 128:] = 1
    masks = [[] for _ in range(14)]
    for label, bitmap in zip((2, 3), halves, strict=True):
        rle = coco_mask.encode(np.asfortranarray(bitmap))
        masks[label - 1] = {"size": [256, 256], "counts": rle["counts"].decode()}
    columns = {"dp_x": 256 * x, "dp_y": 256 * y, "dp_I": part.astype(float), "dp_U": u, "dp_V": v}
    columns = {name: column.tolist() for name, column in columns.items()}
    return annotation(image, box, 1, dp_masks=masks, **columns, **more)


def write_persons(folder, count, seed=0):
    """Images of 64 x 80 px, each with two persons, one without points. Returns the address."""
    rng, records, images = np.random.default_rng(seed), [], []
    for number in range(1, count + 1):
        image = rng.integers(60, 120, (64, 80, 3)).astype(np.uint8)
        for i, left in enumerate((0, 40)):
            x1, y1 = left + rng.integers(2, 8), rng.integers(2, 20)
            x2, y2 = x1 + rng.integers(18, 30), y1 + rng.integers(24, 40)
            box = tuple(map(int, (x1, y1, x2, y2)))
            image[y1:y2, x1:x2] = 230
            image[y1:y2, x1 : (x1 + x2) // 2, 2] = 30
            with_points = person(number, box, seed=rng.integers(1000))
            records.append(annotation(number, box, 1) if i and number % 2 else with_points)
        images.append(image)
    return write_coco(folder, [image.shape[:2] for image in images], records, CATEGORIES, images)


def mesh(seed=0):
    """A surface: U and V (Vx2) and part of V vertices, the twin of each, distances of n twins."""
    rng = np.random.default_rng(seed)
    part = np.repeat(np.arange(1, 25), 4)
    place = rng.uniform(0, 0.5, (80, 3))
    distances = np.sqrt(((place[:, None] - place) ** 2).sum(-1)).astype(np.float32)
    twin = rng.permutation(np.concatenate([np.arange(80), np.arange(16)]))
    return rng.uniform(0, 1, (96, 2)), part, twin, distances


def write_files(folder, seed=0):
    """Writes a mesh and the symmetry of the drawn persons (U to 1 - U) as DensePose's files."""
    folder.mkdir(exist_ok=True)
    uv, part, twin, distances = mesh(seed)
    vertices = {"U_subdiv": uv[:, :1], "V_subdiv": uv[:, 1:], "Part_ID_subdiv": part[:, None]}
    scipy.io.savemat(folder / "SMPL_subdiv.mat", vertices)
    scipy.io.savemat(folder / "SMPL_SUBDIV_TRANSFORM.mat", {"index": twin[:, None] + 1})
    shares = np.tile(np.arange(256) / 255, (256, 1))
    tables = {"U_transforms": 1 - shares, "V_transforms": shares.T}
    cells = {name: np.empty((1, 24), object) for name in tables}
    for name, table in tables.items():
        cells[name][0] = [table] * 24
    scipy.io.savemat(folder / "UV_symmetry_transforms.mat", cells)
    condensed = np.concatenate([distances[i, :i] for i in range(len(distances))])
    (folder / "Pdist_matrix.pkl").write_bytes(python2_pickle(condensed[:, None]))
    return folder


def python2_pickle(array):
    """{"Pdist_matrix": array} as Python 2's NumPy pickled it: texts are bytes, type by type."""

    def text(value):  # BINSTRING
        return b"T" + len(value).to_bytes(4, "little") + value

    def call(module, name, arguments):
        return b"c" + module + b"\n" + name + b"\n(" + arguments + b"tR"

    zero, one, none = b"K\x00", b"K\x01", b"N"
    code = array.dtype.str[1:].encode()
    dtype = call(b"numpy", b"dtype", text(code) + zero + one)
    dtype += b"(K\x03" + text(b"<") + none * 3 + b"J\xff\xff\xff\xff" * 2 + zero + b"tb"
    new_array = call(
        b"numpy.core.multiarray", b"_reconstruct", b"cnumpy\nndarray\n(K\x00t" + text(b"b")
    )
    shape = b"(" + b"".join(pickle.dumps(n, 2)[2:-1] for n in array.shape) + b"t"
    state = b"(K\x01" + shape + dtype + b"\x89" + text(array.tobytes()) + b"tb"
    return b"\x80\x02}" + text(b"Pdist_matrix") + new_array + state + b"s."
