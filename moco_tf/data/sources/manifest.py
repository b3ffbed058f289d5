"""Records and bytes of TFRecord shards: the manifest that `convert` writes, or a count of them.

A manifest is a JSON file: {"shards": {NAME: {"records": int, "bytes": int}}, "classes": [NAME,
...], ...}. With it a source is opened without reading its shards, and missing, added and truncated
shards are named.
"""

import concurrent.futures
import fnmatch
import json
import os
import pathlib

import tensorflow as tf

from moco_tf import storage
from moco_tf.log import log

NAME = "manifest.json"  # in the folder of the shards
THREADS = 32  # remote shards are waited for
HEADER = 8 + 4  # bytes before a record's data: its length, and a checksum of the length
MOST_NAMED = 5  # shards in a message


def counts(pattern: str, paths: list[str], index_dir: str | None = None) -> list[int]:
    """The number of records of each shard, from a manifest, or counted once.

    Args:
        pattern: glob that the user gave.
        paths: files that match it.
        index_dir: folder of the run, in which the counts are kept; None keeps them nowhere.

    Raises:
        ValueError: if shards are not those of the manifest, or one is cut short.
    """
    manifests = beside(pattern, paths)
    kept = index_dir and storage.named_after(index_dir, "tfrecord", pattern, ".json")
    if not manifests and kept and tf.io.gfile.exists(kept):
        manifests = _read(kept)
    if manifests:
        _check(manifests, paths)
        return [manifests[path]["records"] for path in paths]
    log.info("Counting the records of %d TFRecord shards.", len(paths))
    entries = count(paths)
    if kept:
        tf.io.gfile.makedirs(index_dir)
        storage.write_text(kept, json.dumps({"shards": entries}))
    return [entries[path]["records"] for path in paths]


def beside(pattern: str, paths: list[str]) -> dict[str, dict[str, int]]:
    """What the manifests beside shards say of those that match a glob, by their paths.

    Returns:
        Empty if one of the folders has no manifest.
    """
    entries = {}
    for folder in sorted({os.path.dirname(path) for path in paths}):
        manifest = os.path.join(folder, NAME)
        if not tf.io.gfile.exists(manifest):
            return {}
        entries |= {
            os.path.join(folder, name): entry
            for name, entry in _read(manifest).items()
            if fnmatch.fnmatchcase(name, os.path.basename(pattern))
        }
    return entries


def classes(paths: list[str]) -> tuple[str, ...]:
    """The classes that labels number, if the manifests beside shards name the same; else ()."""
    named = set()
    for folder in {os.path.dirname(path) for path in paths}:
        manifest = os.path.join(folder, NAME)
        named.add(
            tuple(_content(manifest).get("classes", ())) if tf.io.gfile.exists(manifest) else ()
        )
    return named.pop() if len(named) == 1 else ()


def count(paths: list[str]) -> dict[str, dict[str, int]]:
    """Counts the records of shards, many at a time.

    Returns:
        The entry of each shard in a manifest, by its path.

    Raises:
        ValueError: if shards end within a record; it names them.
    """

    def entry(path):
        size = tf.io.gfile.stat(path).length
        return {"records": _count(path, size), "bytes": size}

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        entries = dict(zip(paths, pool.map(entry, paths), strict=True))
    truncated = [path for path, entry in entries.items() if entry["records"] is None]
    if truncated:
        raise ValueError(
            f"A TFRecord file must end after a record. Received: {_listed(truncated)}, truncated."
        )
    return entries


def write(folder: str, entries: dict[str, dict[str, int]], **facts):
    """Writes the manifest of shards.

    Args:
        folder: folder of the shards, local or gs://.
        entries: records and bytes of each shard, by its name in the folder.
        facts: JSON-ready, for readers of the file.
    """
    content = json.dumps({"shards": entries, **facts}, indent=1)
    storage.write_text(os.path.join(folder, NAME), content + "\n")


def _read(path):
    return _content(path)["shards"]


def _content(path):
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)


def _check(entries, paths):
    """Raises ValueError unless files are those of a manifest, with its sizes."""
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        sizes = dict(
            zip(paths, pool.map(lambda path: tf.io.gfile.stat(path).length, paths), strict=True)
        )
    common = sorted(sizes.keys() & entries.keys())
    wrong = {
        "missing": sorted(entries.keys() - sizes.keys()),
        "not in the manifest": sorted(sizes.keys() - entries.keys()),
        "of another size, perhaps cut short": [
            path for path in common if entries[path]["bytes"] != sizes[path]
        ],
    }
    if any(wrong.values()):
        received = "; ".join(f"{what}: {_listed(names)}" for what, names in wrong.items() if names)
        raise ValueError(
            f"The shards must be those that {NAME} lists, or that the run has started with. "
            f"Received: {received}. Copy the shards again, or convert again."
        )


def _listed(names):
    more = f", ... ({len(names)})" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _count(path, size):
    """Number of records of an uncompressed file, by their headers; None if it is cut short."""
    is_remote = "://" in path
    chunk_bytes = 1 << 24 if is_remote else 1 << 12  # a request costs as much as megabytes
    unbuffered = pathlib.Path(path).open
    with tf.io.gfile.GFile(path, "rb") if is_remote else unbuffered("rb", buffering=0) as file:
        records = position = first = 0
        chunk = b""
        while position < size:
            if position + HEADER > first + len(chunk):
                file.seek(position)
                first, chunk = position, file.read(chunk_bytes)
            start = position - first
            length = int.from_bytes(chunk[start : start + 8], "little")
            position += HEADER + length + 4
            records += 1
    return records if position == size else None
