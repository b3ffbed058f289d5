"""Source "tfrecord:GLOB": shards of `tf.train.Example`, local or gs://.

Features of an example: "image/encoded", and optionally "image/filename" and "image/class/label"
(numbered from 0).
"""

import os

import tensorflow as tf

from moco_tf.data.sources import manifest
from moco_tf.data.sources.stream import Stream

ADDRESSES = ("tfrecord:GLOB",)


def open(rest: str, num_examples: int | None = None, index_dir: str | None = None, **_) -> Stream:
    """Opens "tfrecord:GLOB".

    The numbers of records come from the manifest that `convert` writes, or from a count that the
    run keeps. With neither, they are counted, unless `num_examples` is given.

    Raises:
        ValueError: if no file matches, or shards are missing, unknown or cut short.
    """
    paths = sorted(
        path for path in tf.io.gfile.glob(rest) if os.path.basename(path) != manifest.NAME
    )
    if not paths:
        raise ValueError(
            f"`tfrecord:GLOB` must match files. Received: {rest!r}, which matches none."
        )
    if tf.io.gfile.isdir(rest):
        shards = tf.io.gfile.glob(os.path.join(rest, "*.tfrecord*"))
        raise ValueError(
            f"`tfrecord:GLOB` must match files. Received: {rest!r}, a folder. Did you mean "
            f"tfrecord:{os.path.join(rest, '*.tfrecord*')} ({len(shards)} files)?"
        )
    if num_examples and not manifest.beside(rest, paths):
        counts, total = [-1] * len(paths), num_examples
    else:
        counts = manifest.counts(rest, paths, index_dir)
        total = sum(counts)
    if num_examples and total != num_examples:
        raise ValueError(
            f"The number of records must be that of {manifest.NAME}, {total}. Received: "
            f"{num_examples}. Leave `num_examples` out."
        )
    return Stream(
        num_examples=total,
        shards=tuple((path, 0, count) for path, count in zip(paths, counts, strict=True)),
        parse=_parse,
        classes=manifest.classes(paths),
    )


def _parse(record):
    def feature(name, dtype, default):
        # One feature at a time: the name of a record without an image can still be read.
        spec = tf.io.FixedLenFeature([], dtype, default)
        return tf.io.parse_single_example(record, {name: spec})[name]

    encoded = feature("image/encoded", tf.string, "")
    name = feature("image/filename", tf.string, "")
    label = feature("image/class/label", tf.int64, -1)
    return encoded, name, label
