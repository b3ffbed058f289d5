"""Record of a run's data, by which the same images are known at another address."""

import hashlib
import itertools
import json
import os

import tensorflow as tf

from moco_tf import distribute, storage
from moco_tf.data.sources import Source, Stream

RECORD = "data.json"  # in a workdir: number of images and a digest of their names
ADDRESSES = ("data.source", "data.data_dir", "monitor.source")  # fields that moved data change
MOST_NAMES = 100_000  # of images that are no files; more would take long to name


def identity(source: Source | Stream) -> dict:
    """Number of images and digest of their names, without the folder that they are in."""
    if isinstance(source, Stream):
        names = [f"{os.path.basename(path)} {skip} {take}" for path, skip, take in source.shards]
    elif source.files:
        first, last = (source.files[i].split("/")[:-1] for i in (0, -1))  # sorted: all are between
        pairs = itertools.takewhile(lambda ab: ab[0] == ab[1], zip(first, last, strict=False))
        depth = len(list(pairs))
        names = ["/".join(path.split("/")[depth:]) for path in source.files]
    elif source.num_examples <= MOST_NAMES:
        names = [name.decode() for name in source.keys().map(source.name).as_numpy_iterator()]
    else:
        names = []
    sha = hashlib.sha256("\0".join(names).encode())
    return {"images": source.num_examples, "names": sha.hexdigest() if names else None}


def movable(workdir: str, facts: dict) -> tuple[str, ...]:
    """Fields that may differ on resume: `ADDRESSES` if the images are those of the workdir.

    Args:
        workdir: local or gs:// folder of a run, or a new one.
        facts: `identity` of the source now.
    """
    path = os.path.join(workdir, RECORD)
    if not tf.io.gfile.exists(path) or facts["names"] is None:
        return ()
    with tf.io.gfile.GFile(path) as file:
        return ADDRESSES if json.load(file) == facts else ()


def write(workdir: str, facts: dict, strategy: tf.distribute.Strategy):
    """Writes the record of a claimed workdir, if it has none; only the chief does."""
    path = os.path.join(workdir, RECORD)
    if distribute.is_chief(strategy) and not tf.io.gfile.exists(path):
        storage.write_text(path, json.dumps(facts, indent=2) + "\n")
