"""Reading and writing PyTorch checkpoint files (torch.save) without PyTorch.

A file of torch.save is a pickle, which may call any function. The reader calls only functions that
make tensors and containers; it refuses a file that asks for others.

Source: torch/serialization.py; the zip format (since PyTorch 1.6) and the one before it.
"""

import collections
import io
import math
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import tensorflow as tf

from moco_tf import storage

STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(tf.bfloat16.as_numpy_dtype),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the old format
ENDINGS = (".pth", ".pth.tar", ".pt", ".ckpt", ".tar")


def read(path: str) -> Any:
    """Reads a file of torch.save.

    Args:
        path: local or gs:// file.

    Returns:
        The saved object, with NumPy arrays for tensors.

    Raises:
        ValueError: if the file is damaged or no file of torch.save, or if it holds anything but
            tensors, numbers, texts and containers.
    """
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    try:
        return _read_zip(content) if content[:2] == b"PK" else _read_old(content)
    except _Refused:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(
            f"{path!r} must be a whole file of torch.save. Received: {error or repr(error)}"
        ) from error


class _Refused(ValueError):
    """The file is whole, but holds more than data."""


class _Storage:
    """A flat array, wrapped so that a pickle cannot reach it."""

    __slots__ = ("array",)

    def __init__(self, array):
        self.array = array


class _Unpickler(pickle._Unpickler):  # the C one allocates the sizes that a file claims
    """Unpickles tensors and containers; `storage(dtype, key, count)` gives a flat array."""

    def __init__(self, file, storage=None):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module, name):
        # New functions at each call, because a pickle can set attributes on what it gets.
        def tensor(storage, offset, shape, strides, *_):
            if not isinstance(storage, _Storage):
                raise pickle.UnpicklingError("a tensor that is not of a storage")
            return _view(storage.array, offset, shape, strides)

        def parameter(array, *_):
            return array

        allowed = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor": tensor,
            "torch._utils._rebuild_tensor_v2": tensor,
            "torch._utils._rebuild_parameter": parameter,
            "torch.Size": tuple,
        }
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return name
        if f"{module}.{name}" in allowed:
            return allowed[f"{module}.{name}"]
        raise _Refused(
            "A PyTorch file must hold only tensors, numbers, texts and containers, because "
            f"anything else could run code. Received: a file that asks for {module}.{name}. If you "
            "trust it, load it with PyTorch and the code that made it, and save its weights alone: "
            "x = torch.load(FILE, map_location='cpu', weights_only=False). If x is a checkpoint, "
            "such as Lightning's: torch.save(x['state_dict'], NEW). If x is a whole model, saved "
            "by torch.save(model): torch.save(x.state_dict(), NEW)."
        )

    def persistent_load(self, pid):
        name, storage, key, _, count, *_ = pid
        if name != "storage" or self._storage is None:
            raise pickle.UnpicklingError(f"unknown persistent id {name!r}")
        return _Storage(self._storage(STORAGES[storage], key, count))


def _view(array, offset, shape, strides):
    """A strided view of a flat array; raises UnpicklingError if it would leave the array."""
    if min((offset, *shape, *strides), default=0) < 0 or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor with a negative or missing length or stride")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=False))
    if 0 in shape:
        return np.empty(shape, array.dtype)
    if last >= array.size or math.prod(shape) > array.size:
        raise pickle.UnpicklingError("a tensor that is larger than its storage")
    size = array.dtype.itemsize
    return np.lib.stride_tricks.as_strided(array[offset:], shape, [s * size for s in strides])


def _read_zip(content):
    archive = zipfile.ZipFile(io.BytesIO(content))
    (pickled,) = [n for n in archive.namelist() if n.endswith("/data.pkl")] or ["data.pkl"]
    root = pickled.removesuffix("data.pkl")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise pickle.UnpicklingError("a compressed archive")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise pickle.UnpicklingError("numbers in big-endian order")
    storages = {}

    def storage(dtype, key, count):
        if key not in storages:
            storages[key] = np.frombuffer(archive.read(f"{root}data/{key}"), dtype)
        if storages[key].size < count:
            raise pickle.UnpicklingError(f"storage {key} is too short")
        return storages[key]

    return _Unpickler(io.BytesIO(archive.read(pickled)), storage).load()


def _read_old(content):
    file = io.BytesIO(content)
    if _Unpickler(file).load() != MAGIC:
        raise pickle.UnpicklingError("another beginning")
    for _ in ("protocol", "system"):
        _Unpickler(file).load()
    storages = {}

    def storage(dtype, key, count):  # filled below, because the numbers follow the pickle
        if not 0 <= count * dtype.itemsize <= len(content):
            raise pickle.UnpicklingError(f"storage {key} is too short")
        return storages.setdefault(key, np.empty(count, dtype))

    result = _Unpickler(file, storage).load()
    keys = _Unpickler(file).load()
    if sorted(keys) != sorted(storages):
        raise pickle.UnpicklingError("the numbers of some storages are missing")
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        array = storages[key]
        if count != array.size:
            raise pickle.UnpicklingError(f"storage {key} has another length")
        raw = file.read(array.nbytes)
        if len(raw) < array.nbytes:  # NumPy would spread a single number over the array
            raise pickle.UnpicklingError(f"storage {key} is cut short")
        array[:] = np.frombuffer(raw, array.dtype)
    return result


def write(path: str, value: Any):
    """Writes a file that torch.load reads, also with `weights_only=True`.

    Args:
        path: local or gs:// file; written under a temporary name and renamed.
        value: dicts, lists and tuples of numbers, texts, None and NumPy arrays.
    """
    arrays = []
    pickled = pickle.PROTO + b"\x02" + _pickle(value, arrays) + pickle.STOP
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(arrays):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    storage.write_bytes(path, content.getvalue())


def _pickle(value, arrays):
    """The pickle of a value without PROTO and STOP; appends the arrays in it to `arrays`."""

    def all_of(values):
        return b"".join(_pickle(v, arrays) for v in values)

    if isinstance(value, np.ndarray):
        # ascontiguousarray makes a 0-d array 1-d.
        arrays.append(np.ascontiguousarray(value).reshape(value.shape))
        return _pickle_tensor(arrays[-1], str(len(arrays) - 1), all_of)
    if isinstance(value, dict):
        items = all_of(x for item in value.items() for x in item)
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if isinstance(value, list):
        return pickle.EMPTY_LIST + pickle.MARK + all_of(value) + pickle.APPENDS
    if isinstance(value, tuple):
        return pickle.MARK + all_of(value) + pickle.TUPLE
    if value is None or isinstance(value, (bool, int, float, str)):
        return pickle.dumps(value, protocol=2)[2:-1]  # without PROTO and STOP
    raise TypeError(f"A PyTorch file cannot hold a {type(value).__name__}.")


def _pickle_tensor(array, key, all_of):
    def named(module, name):
        return pickle.GLOBAL + f"{module}\n{name}\n".encode()

    def call(function, arguments):
        return function + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE

    (storage_type,) = (name for name, dtype in STORAGES.items() if dtype == array.dtype)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    pid = all_of(["storage"]) + named("torch", storage_type) + all_of([key, "cpu", array.size])
    storage = pickle.MARK + pid + pickle.TUPLE + pickle.BINPERSID
    hooks = call(named("collections", "OrderedDict"), b"")
    view = all_of([0, array.shape, strides, False])
    return call(named("torch._utils", "_rebuild_tensor_v2"), storage + view + hooks)
