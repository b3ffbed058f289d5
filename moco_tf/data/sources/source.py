"""Data sources: images with random access (`Source`), or a stream of records (`Stream`).

The input pipelines know an example by its key: its number in a `Source`, its record in a `Stream`.
Both classes have `image`, `label` and `name`, graph functions of that key.
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
        num_examples: number of images.
        read: graph function from an int64 scalar (0 <= index < num_examples) to
            the encoded bytes (string scalar), or to a decoded uint8 HxWx3 image.
        name: graph function from the index to a string scalar, for messages.
        encoded: whether `read` gives encoded bytes.
        labels: int64, num_examples; None without labels.
        classes: names of the classes that the labels number, or ().
        files: paths of the images if each is a file, or ().
        decode: graph function from encoded bytes to an image, as `image_ops.decode`.

    Example, images of a list of files:
        paths = tf.constant(sorted(glob.glob("photos/*.jpg")))
        source = Source(
            num_examples=len(paths),
            read=lambda index: tf.io.read_file(paths[index]),
            name=lambda index: paths[index],
            encoded=True,
        )
    """

    num_examples: int
    read: Callable
    name: Callable
    encoded: bool
    labels: np.ndarray | None = None
    classes: tuple = ()
    files: tuple = ()
    decode: Callable = image_ops.decode

    def image(self, key):
        """The decoded image of a key: uint8 HxWx3."""
        image = self.read(key)
        return self.decode(image) if self.encoded else image

    def label(self, key):
        """The label of a key: int64 scalar, -1 without labels."""
        if self.labels is None:
            return tf.constant(-1, tf.int64)
        with tf.device("CPU"):
            return tf.gather(tf.constant(self.labels), key)

    def keys(self):
        """Dataset of all keys in order."""
        return tf.data.Dataset.range(self.num_examples)

    def subset(self, indices):
        """A source of some of the images, by their numbers: int array."""
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
    """Records in shards, which can be read in order only.

    Attributes:
        num_examples: number of records in all shards.
        shards: `(path, skip, take)` of each shard: how many records to skip and how many to take
            after them; take -1 is all. A file cannot be read after a record with a wrong
            checksum. If `take` is known, the lost records count as undecodable images; if it is
            -1, the checksum is an error.
        parse: graph function from a serialized record to `(encoded bytes, name, label)`: two string
            scalars and an int64 scalar, -1 without a label.
        classes: names of the classes that the labels number, or ().
        decode: graph function from encoded bytes to an image, as `image_ops.decode`.
    """

    num_examples: int
    shards: tuple
    parse: Callable
    classes: tuple = ()
    decode: Callable = image_ops.decode

    def image(self, key):
        """The decoded image of a key: uint8 HxWx3."""
        return self.decode(self.parse(key)[0])

    def name(self, key):
        """The name of a key's image, for messages: string scalar."""
        return self.parse(key)[1]

    def label(self, key):
        """The label of a key: int64 scalar, -1 without labels."""
        return self.parse(key)[2]

    def relabelled(self, table):
        """The source with label `table[i]` instead of i (int64 array)."""

        def parse(record):
            encoded, name, label = self.parse(record)
            return encoded, name, tf.where(label < 0, label, tf.gather(table, tf.nn.relu(label)))

        return dataclasses.replace(self, parse=parse)

    def keys(self):
        """Dataset of all keys, that is records, in order."""
        return tf.data.Dataset.from_tensor_slices(_columns(self.shards)).flat_map(_records(self))

    def epoch(self, seed, epoch, buffer_size, shard_files=(1, 0)):
        """The records of one epoch: shards in random order, interleaved, in shuffled blocks.

        Args:
            seed: seed of the run, int.
            epoch: int64 tensor or int; each epoch has its own order.
            buffer_size: records in memory; half of them are a block.
            shard_files: `(n, i)`: take every n-th shard from the i-th on.

        Returns:
            `tf.data.Dataset` of serialized records.

        Raises:
            ValueError: for fewer than n shards.
        """
        count, first = shard_files
        if len(self.shards) < count:
            raise ValueError(
                "`--config.data.shard_files` needs at least one file for each host. Received: "
                f"{len(self.shards)} files, {count} hosts."
            )
        columns = _columns(self.shards[first::count])

        def shuffled(x, i):
            """The rows of x in a random order, another for each (seed, epoch, i)."""
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
    """Tensors of the shards' paths, skip, take, and of the records that replace lost ones."""
    paths, skip, take = zip(*shards, strict=True)
    lost = [_record_without_image(f"{p}, after a record that cannot be read") for p in paths]
    return (
        tf.constant(paths),
        tf.constant(skip, tf.int64),
        tf.constant(take, tf.int64),
        tf.constant(lost),
    )


def _record_without_image(name):
    """A serialized `tf.train.Example` with a name only."""
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[name.encode()]))
    features = tf.train.Features(feature={"image/filename": value})
    return tf.train.Example(features=features).SerializeToString()


def _records(stream):
    """Function from a row of `_columns` to the dataset of the shard's records."""
    is_counted = all(take >= 0 for _, _, take in stream.shards)

    def records_of(path, skip, take, lost):
        records = tf.data.TFRecordDataset(path).skip(skip)
        if is_counted:
            records = records.ignore_errors()
            records = records.concatenate(tf.data.Dataset.from_tensors(lost).repeat())
        return records.take(take)

    return records_of


def from_arrays(images, labels=None, classes=()) -> Source:
    """A source of images in a NumPy array, for scripts and notebooks.

    Args:
        images: uint8 NxHxWx3.
        labels: int N, or None.
        classes: names of the classes that the labels number, or ().

    Raises:
        ValueError: for another type or shape, or another number of labels.

    Example:
        >>> source = from_arrays(np.zeros((100, 32, 32, 3), np.uint8), labels=np.zeros(100, int))
        >>> source.num_examples
        100
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


def from_bytes(encoded: list[bytes], names: list[str], labels=None) -> Source:
    """A source of encoded images in memory.

    Args:
        encoded: contents of image files.
        names: names of the images, for messages.
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


def renumber_labels(source: Source, like: Source) -> Source:
    """Renumbers the labels of a source as in another source, by the names of the classes.

    Args:
        source: `Source` or `Stream`, such as the test images of some of the classes.
        like: `Source` or `Stream` whose numbering to use, such as the training images.

    Returns:
        The source unchanged if one of the two does not name its classes.

    Raises:
        ValueError: for a class of `source` that `like` lacks.
    """
    if not (source.classes and like.classes) or source.classes == like.classes:
        return source
    unknown = sorted(set(source.classes) - set(like.classes))
    if unknown:
        raise ValueError(
            "The test images must have only classes of the training images. Received: "
            f"{', '.join(unknown[:5])}, without training images. Use other sources."
        )
    return source.relabelled(np.array([like.classes.index(name) for name in source.classes]))
