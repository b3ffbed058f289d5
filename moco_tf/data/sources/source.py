"""What a data source is: images addressed by number, or a stream of records.

Both have `image`, `label` and `name`, graph functions of an example's key: its number in a
`Source`, its record in a `Stream`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from moco_tf.data import image_ops
from moco_tf.data.random_key import random_key


@dataclasses.dataclass(frozen=True)
class Source:
    """Images with random access.

    Attributes:
        num_examples: how many there are.
        read: graph function from an int64 scalar (0 <= index < num_examples) to
            the encoded bytes (string scalar), or to a decoded uint8 HxWx3 image.
        name: graph function from the index to a string scalar, for messages.
        encoded: whether `read` gives encoded bytes.
        labels: int64, num_examples; None without labels.
        classes: names of the classes that the labels number, if they have any.
        files: paths of the images, if each is a file.
    """

    num_examples: int
    read: Callable
    name: Callable
    encoded: bool
    labels: np.ndarray | None = None
    classes: tuple = ()
    files: tuple = ()

    def image(self, key):
        """uint8 HxWx3."""
        image = self.read(key)
        return image_ops.decode(image) if self.encoded else image

    def label(self, key):
        """int64 scalar, -1 without labels."""
        if self.labels is None:
            return tf.constant(-1, tf.int64)
        with tf.device("CPU"):
            return tf.gather(tf.constant(self.labels), key)

    def keys(self):
        """Data set of all keys in order."""
        return tf.data.Dataset.range(self.num_examples)

    def subset(self, indices):
        """The source of some of the images, by their numbers."""
        with tf.device("CPU"):
            chosen = tf.constant(indices, tf.int64)
        return dataclasses.replace(
            self,
            num_examples=len(indices),
            read=lambda index: self.read(tf.gather(chosen, index)),
            name=lambda index: self.name(tf.gather(chosen, index)),
            labels=None if self.labels is None else self.labels[indices],
            files=tuple(self.files[i] for i in indices) if self.files else (),
        )

    def relabelled(self, table):
        """The source with label `table[i]` instead of i (int64 array)."""
        return dataclasses.replace(self, labels=table[self.labels])


@dataclasses.dataclass(frozen=True)
class Stream:
    """Records too many to address, in shards.

    Attributes:
        num_examples: records in all shards.
        shards: `(path, skip, take)` per shard, records; take -1 is all. Where it is known, records
            from one with a wrong checksum on, after which a file cannot be read, count as images
            that cannot be decoded; else they are an error.
        parse: graph function from a serialized record to `(encoded bytes, name, label)`, string
            scalars and an int64 scalar, -1 without a label.
        classes: names of the classes that the labels number, if they are known.
    """

    num_examples: int
    shards: tuple
    parse: Callable
    classes: tuple = ()

    def image(self, key):
        """uint8 HxWx3."""
        return image_ops.decode(self.parse(key)[0])

    def name(self, key):
        """String scalar, for messages."""
        return self.parse(key)[1]

    def label(self, key):
        """int64 scalar, -1 without labels."""
        return self.parse(key)[2]

    def relabelled(self, table):
        """The source with label `table[i]` instead of i (int64 array)."""

        def parse(record):
            encoded, name, label = self.parse(record)
            return encoded, name, tf.where(label < 0, label, tf.gather(table, tf.nn.relu(label)))

        return dataclasses.replace(self, parse=parse)

    def keys(self):
        """Data set of all records in order."""
        return tf.data.Dataset.from_tensor_slices(_columns(self.shards)).flat_map(_records(self))

    def epoch(self, seed, epoch, buffer_size, shard_files=(1, 0)):
        """The records of one epoch: shards in random order, interleaved, in shuffled blocks.

        Raises:
            ValueError: for fewer shards than `shard_files` shares them between.

        Args:
            seed: int.
            epoch: int64 tensor or int; each epoch has its own order.
            buffer_size: records in memory; half of them are a block.
            shard_files: `(n, i)`: take every n-th shard from the i-th on.

        Returns:
            `tf.data.Dataset` of serialized records.
        """
        count, first = shard_files
        if len(self.shards) < count:
            raise ValueError(
                "`data.shard_files` needs at least one file for each host. Received: "
                f"{len(self.shards)} files, {count} hosts."
            )
        columns = _columns(self.shards[first::count])

        def shuffled(x, i):
            """Rows of x in a random order of its own for each (seed, epoch, i)."""
            key = random_key("record order", seed, tf.cast(epoch, tf.int64) * 2**32 + i)
            draw = tf.random.stateless_uniform(tf.shape(x)[:1], key, alg="philox")
            return tf.gather(x, tf.argsort(draw))

        order = shuffled(tf.range(columns[0].shape[0]), 0)
        shards = tf.data.Dataset.from_tensor_slices(tuple(tf.gather(x, order) for x in columns))
        records = shards.interleave(
            _records(self),
            cycle_length=min(16, len(self.shards)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        # One block is read while another is used. `Dataset.shuffle` would not do: once a global
        # seed is set it takes no seed that is a tensor, such as one made of the epoch.
        blocks = records.batch(max(1, buffer_size // 2)).enumerate()
        return blocks.map(lambda i, block: shuffled(block, i + 1)).prefetch(1).unbatch()


def _columns(shards):
    """Tensors of paths, skip, take, and of what stands for the records of each that are lost."""
    paths, skip, take = zip(*shards)
    lost = [_named(f"{path}, after a record that cannot be read") for path in paths]
    skip, take = (tf.constant(x, tf.int64) for x in (skip, take))
    return tf.constant(paths), skip, take, tf.constant(lost)


def _named(name):
    """A serialized example without an image."""
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()]))
    features = tf.train.Features(feature={"image/filename": value})
    return tf.train.Example(features=features).SerializeToString()


def _records(stream):
    """Function from the `_columns` of a shard to its records."""
    counted = all(take >= 0 for _, _, take in stream.shards)

    def records(path, skip, take, lost):
        found = tf.data.TFRecordDataset(path).skip(skip)
        if counted:
            found = found.ignore_errors()
            found = found.concatenate(tf.data.Dataset.from_tensors(lost).repeat())
        return found.take(take)

    return records


def from_arrays(images, labels=None, classes=()):
    """A source of NumPy arrays, for scripts of your own.

    Args:
        images: uint8 NxHxWx3.
        labels: int N, or None.
        classes: names of the classes that the labels number, or ().
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            "`images` must be a uint8 array NxHxWx3. "
            f"Received: {images.dtype} of shape {images.shape}."
        )
    if labels is not None and len(labels) != len(images):
        raise ValueError(
            f"`labels` must be as many as the images, {len(images)}. Received: {len(labels)}."
        )
    with tf.device("CPU"):
        tensor = tf.constant(images)
    return Source(
        num_examples=len(images),
        read=lambda index: tf.gather(tensor, index),
        name=lambda index: tf.strings.as_string(index),
        encoded=False,
        labels=None if labels is None else np.asarray(labels, np.int64),
        classes=tuple(classes),
    )


def from_bytes(encoded, names, labels=None):
    """A source of encoded images held in memory.

    Args:
        encoded: list of bytes.
        names: list of str.
        labels: int array, or None.
    """
    with tf.device("CPU"):
        encoded, names = tf.constant(encoded), tf.constant(names)
    return Source(
        num_examples=len(encoded),
        read=lambda index: tf.gather(encoded, index),
        name=lambda index: tf.gather(names, index),
        encoded=True,
        labels=None if labels is None else np.asarray(labels, np.int64),
    )


def in_numbering_of(train, test):
    """The test source with its labels in the training source's numbering, if both name classes.

    Raises:
        ValueError: for a class that the training images lack.
    """
    if not (train.classes and test.classes) or train.classes == test.classes:
        return test
    unknown = sorted(set(test.classes) - set(train.classes))
    if unknown:
        raise ValueError(
            "The test images must have classes of the training images. Received besides: "
            f"{', '.join(unknown[:5])}. Name other sources."
        )
    return test.relabelled(np.array([train.classes.index(name) for name in test.classes]))
