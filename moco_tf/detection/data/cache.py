"""Cache of annotations in a run's folder: checked, selected and packed once, then read in seconds.

A cache is an .npz of plain arrays, without pickles. It begins with a key: the address, the options,
and the size and time of each annotation file. A cache with another key is written again.
"""

import json
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.log import log
from moco_tf.version import VERSION

FORMAT = 1  # of the file; another number makes old caches foreign
HEADER = "header"
# What a file that is cut short, damaged or of another program raises.
ERRORS = (zipfile.BadZipFile, ValueError, TypeError, KeyError, EOFError, OSError, tf.errors.OpError)


def kept(
    index_dir: str, address: str, files: Sequence[str], options: dict, make: Callable[[], tuple]
) -> tuple[dict[str, Any], list]:
    """Reads annotations from a cache, which is written first unless there is one with this key.

    Args:
        index_dir: folder of the caches, local or gs://.
        address, files, options: see `key_of`.
        make: function that returns the last two arguments of `write`.

    Returns:
        What `make` returns, or has returned.
    """
    key = key_of(address, files, options)
    use = "train" if options["training"] else "test"
    path = storage.named_after(index_dir, f"annotations-{use}", address, ".npz")
    content = read(path, key)
    if content is None:
        tf.io.gfile.makedirs(index_dir)
        write(path, key, *make())
        content = read(path, key)
    return content or make()


def key_of(address: str, files: Sequence[str], options: dict) -> dict:
    """What the content of a cache depends on, JSON-ready.

    Args:
        address: address of the annotations.
        files: files and folders that decide what the reader returns. A file counts by its size and
            time, a folder by its path.
        options: arguments of `annotations.examine`.
    """
    stats = []
    for path in files:
        is_folder = tf.io.gfile.isdir(path)
        stat = None if is_folder else tf.io.gfile.stat(path)
        stats.append([path, *([stat.length, stat.mtime_nsec] if stat else [])])
    key = {"format": FORMAT, "version": VERSION, "address": address, "files": stats}
    return json.loads(json.dumps(key | {"options": options}))


def read(path: str, key: dict) -> tuple[dict[str, Any], list] | None:
    """Reads the fields of `annotations.Annotations` from a cache, and messages.

    Args:
        path: local or gs:// file.
        key: as `key_of` returns it.

    Returns:
        What `write` was given, bit for bit; None if the file is absent, damaged, or has another
        key.
    """
    if not tf.io.gfile.exists(path):
        return None
    try:
        with tf.io.gfile.GFile(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            header = json.loads(arrays[HEADER].tobytes())
            if header["key"] == key:
                return _fields(header, arrays), header["messages"]
            problem = "The annotation files or the options have changed since"
    except ERRORS as error:
        problem = f"It is damaged: {type(error).__name__}: {error}"
    log.warning("The cache %s is ignored and written again. %s.", path, problem)
    return None


def write(path: str, key: dict, fields: dict[str, Any], messages: list):
    """Writes a cache, whole or not at all.

    Args:
        path: local or gs:// file.
        key: as `key_of` returns it.
        fields: fields of `annotations.Annotations`.
        messages: JSON-ready, for the log of later starts.
    """
    header = {"key": key, "messages": messages, "values": {}, "bytes": [], "rles": []}
    arrays = {}
    for name, value in fields.items():
        first = value[0] if isinstance(value, tuple) and value else None
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif isinstance(first, bytes):
            header["bytes"].append(name)
            arrays |= _packed(name, value)
        elif isinstance(first, dict):
            header["rles"].append(name)
            counts = [rle["counts"] for rle in value]
            arrays[f"{name}.size"] = np.array([rle["size"] for rle in value], np.int64)
            arrays[f"{name}.is_text"] = np.array([isinstance(c, str) for c in counts])
            arrays |= _packed(name, [c.encode() if isinstance(c, str) else c for c in counts])
        else:
            header["values"][name] = value
    arrays[HEADER] = np.frombuffer(json.dumps(header).encode(), np.uint8)

    def write_to(temporary):
        with tf.io.gfile.GFile(temporary, "wb") as file:
            np.savez(_Stream(file), **arrays)

    storage.replace(path, write_to)


class _Stream:
    """A file to append to. zipfile seeks in any that could, which TensorFlow's files cannot."""

    def __init__(self, file):
        self._file = file
        self.flush = file.flush

    def write(self, content):
        self._file.write(content)
        return len(content)

    def read(self):
        raise NotImplementedError  # NumPy takes objects with this name for files


def _packed(name, values):
    """Arrays of many strings of bytes: all in one, and the end of each."""
    ends = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    return {f"{name}.bytes": np.frombuffer(b"".join(values), np.uint8), f"{name}.ends": ends}


def _unpacked(arrays, name):
    content, ends = memoryview(arrays[f"{name}.bytes"]), arrays[f"{name}.ends"].tolist()
    starts = [0, *ends[:-1]]
    return (bytes(content[start:end]) for start, end in zip(starts, ends, strict=True))


def _fields(header, arrays):
    fields = {name: arrays[name] for name in arrays.files if name != HEADER and "." not in name}
    for name, value in header["values"].items():
        fields[name] = tuple(value) if isinstance(value, list) else value
    for name in header["bytes"]:
        fields[name] = tuple(_unpacked(arrays, name))
    for name in header["rles"]:
        sizes, is_text = arrays[f"{name}.size"].tolist(), arrays[f"{name}.is_text"].tolist()
        fields[name] = tuple(
            {"size": size, "counts": counts.decode() if text else counts}
            for size, text, counts in zip(sizes, is_text, _unpacked(arrays, name), strict=True)
        )
    return fields
