"""Source "tfrecord:GLOB": shards of `tf.train.Example`, local or gs://.

Features of an example: "image/encoded", and optionally "image/filename" and "image/class/label"
(numbered from 0).
"""

import os

import tensorflow as tf

from moco_tf.data.sources.source import Stream

ADDRESSES = ("tfrecord:GLOB",)


def open(rest: str, num_examples: int | None = None, **_) -> Stream:
    """Opens "tfrecord:GLOB". Counts the records by their headers unless `num_examples` is given.

    Raises:
        ValueError: if no file matches, or one is cut short.
    """
    paths = sorted(tf.io.gfile.glob(rest))
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
    counts = [-1 if num_examples else count_records(path) for path in paths]
    return Stream(
        num_examples=num_examples or sum(counts),
        shards=tuple((path, 0, count) for path, count in zip(paths, counts, strict=True)),
        parse=_parse,
    )


def count_records(path: str) -> int:
    """Number of records in an uncompressed TFRecord file, read from their length headers.

    Raises:
        ValueError: if the file ends within a record.
    """
    size = tf.io.gfile.stat(path).length
    count = position = 0
    with tf.io.gfile.GFile(path, "rb") as file:
        while position < size:
            file.seek(position)
            # Length (8 bytes), its checksum (4), the data, its checksum (4).
            position += 8 + 4 + int.from_bytes(file.read(8), "little") + 4
            count += 1
    if position != size:
        raise ValueError(f"A TFRecord file must end after a record. Received: {path!r}, truncated.")
    return count


def _parse(record):
    def feature(name, dtype, default):
        # One feature at a time: the name of a record without an image can still be read.
        spec = tf.io.FixedLenFeature([], dtype, default)
        return tf.io.parse_single_example(record, {name: spec})[name]

    encoded = feature("image/encoded", tf.string, "")
    name = feature("image/filename", tf.string, "")
    label = feature("image/class/label", tf.int64, -1)
    return encoded, name, label
