"""TFRecord shards of `tf.train.Example`, local or gs://.

Features: "image/encoded", and perhaps "image/filename" and "image/class/label" (from 0 on).
"""

import tensorflow as tf

from moco_tf.data.sources.source import Stream

ADDRESSES = ("tfrecord:GLOB",)


def open(rest, num_examples=None, **_):
    """Opens "tfrecord:GLOB". Counts the records by their headers unless `num_examples` is given."""
    paths = sorted(tf.io.gfile.glob(rest))
    if not paths:
        raise ValueError(
            f"`tfrecord:GLOB` must match files. Received: {rest!r}, which matches none."
        )
    counts = [-1 if num_examples else count_records(path) for path in paths]
    return Stream(
        num_examples=num_examples or sum(counts),
        shards=tuple((path, 0, count) for path, count in zip(paths, counts)),
        parse=_parse,
    )


def count_records(path):
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
        # Each for itself: of a record without an image the name can still be read.
        spec = tf.io.FixedLenFeature([], dtype, default)
        return tf.io.parse_single_example(record, {name: spec})[name]

    image, name = (feature(f"image/{n}", tf.string, "") for n in ("encoded", "filename"))
    return image, name, feature("image/class/label", tf.int64, -1)
