"""Record of a run's data, by which the same images are known at another address."""

import hashlib
import itertools
import json
import os

import tensorflow as tf

from moco_tf import distribute, storage
from moco_tf.data.sources import Source, Stream
from moco_tf.log import log

RECORD = "data.json"  # in a workdir: number of images, digests of their names and sizes
INDEX = "sources"  # folder in a workdir: names and counts that take long to find out
ADDRESSES = ("data.source", "data.data_dir", "monitor.source")  # fields that moved data change
MOST_NAMES = 100_000  # of images that are no files; more would take long to name
MOST_SIZES = 2_000_000  # of files; more would take long to ask for


def identity(source: Source | Stream) -> dict:
    """Number of images, and digests of their names and of the sizes of their files.

    Names are without the folder that the images are in. Sizes are None for files in gs://, where
    each would be a request.
    """
    files = source.files if isinstance(source, Source) else ()
    if isinstance(source, Stream):
        files = [path for path, _, _ in source.shards]
        names = [f"{os.path.basename(path)} {skip} {take}" for path, skip, take in source.shards]
    elif source.files:
        first, last = (source.files[i].split("/")[:-1] for i in (0, -1))  # sorted: all are between
        pairs = itertools.takewhile(lambda ab: ab[0] == ab[1], zip(first, last, strict=False))
        depth = len(list(pairs))
        names = ("/".join(path.split("/")[depth:]) for path in source.files)
    elif source.num_examples <= MOST_NAMES:
        names = [name.decode() for name in source.keys().map(source.name).as_numpy_iterator()]
    else:
        names = []
    return {"images": source.num_examples, "names": _digest(names), "sizes": _digest(_sizes(files))}


def _sizes(files):
    """Sizes of local files as texts; [] for others, for too many, and if one does not exist."""
    if len(files) > MOST_SIZES or any("://" in path for path in files):
        return []
    try:
        return [str(os.stat(path).st_size) for path in files]
    except FileNotFoundError:
        return []


def _digest(texts):
    sha, separator = hashlib.sha256(), b""
    for text in texts:  # one by one: there may be millions
        sha.update(separator + storage.utf8(text))
        separator = b"\0"
    return sha.hexdigest() if separator else None


def movable(workdir: str, facts: dict) -> tuple[str, ...]:
    """Fields that may differ on resume: `ADDRESSES` if the images are those of the workdir.

    Warns if they are others, which a run at the same address goes on with.

    Args:
        workdir: local or gs:// folder of a run, or a new one.
        facts: `identity` of the source now.
    """
    path = os.path.join(workdir, RECORD)
    if not tf.io.gfile.exists(path) or facts["names"] is None:
        return ()
    with tf.io.gfile.GFile(path) as file:
        old = json.load(file)
    known = [name for name in facts if None not in (old.get(name), facts[name])]
    changed = [name for name in known if old[name] != facts[name]]
    if not changed:
        return ADDRESSES
    log.warning(
        "The images are not those that this run started with: %s.",
        f"{old['images']} images then, {facts['images']} now"
        if "images" in changed
        else f"as many, but {' and '.join(changed)} of files differ",
    )
    return ()


def write(workdir: str, facts: dict, strategy: tf.distribute.Strategy):
    """Writes the record of a claimed workdir, if it has none; only the chief does."""
    path = os.path.join(workdir, RECORD)
    if distribute.is_chief(strategy) and not tf.io.gfile.exists(path):
        storage.write_text(path, json.dumps(facts, indent=2) + "\n")
