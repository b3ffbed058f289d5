"""Data sources that are read in order: `Stream`, records in shards."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.data import image_ops
from moco_tf.data.random_key import random_key
from moco_tf.data.sources.interleave import state_after

CYCLE = 16  # shards that are read side by side


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

    def keys(self, start: int = 0):
        """Dataset of all keys, that is records, in order, from number `start` on."""
        if start and self.is_counted:
            ends = np.cumsum([take for _, _, take in self.shards])
            shard = int(np.searchsorted(ends, start, side="right"))
            before = start - (ends[shard - 1] if shard else 0)
            (path, skip, take), *rest = self.shards[shard:]
            shards = ((path, skip + before, take - before), *rest)
            return dataclasses.replace(self, shards=shards).keys()
        records = tf.data.Dataset.from_tensor_slices(_columns(self.shards)).flat_map(_records(self))
        return records.skip(start)

    @property
    def is_counted(self) -> bool:
        """Whether the number of records of each shard is known."""
        return all(take >= 0 for _, _, take in self.shards)

    def epoch(self, seed, epoch, buffer_size, shard_files=(1, 0), start=0):
        """The records of one epoch: shards in random order, interleaved, in shuffled blocks.

        Args:
            seed: seed of the run, int.
            epoch: int64 tensor or int; each epoch has its own order.
            buffer_size: records in memory; half of them are a block.
            shard_files: `(n, i)`: take every n-th shard from the i-th on.
            start: number of the first record to yield. Shards that end before its block are not
                read if the records of each shard are known. More than 0 needs an int `epoch`.

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
        cycle = min(CYCLE, len(self.shards))

        def shuffled(x, i):
            """The rows of x in a random order, another for each (seed, epoch, i)."""
            key = random_key("record order", seed, tf.cast(epoch, tf.int64) * 2**32 + i)
            draw = tf.random.stateless_uniform(tf.shape(x)[:1], key, alg="philox")
            return tf.gather(x, tf.argsort(draw))

        order = shuffled(tf.range(columns[0].shape[0]), 0)
        columns = tuple(tf.gather(x, order) for x in columns)
        block = max(1, buffer_size // 2)
        blocks_before, rest = divmod(start, block)
        records_before = blocks_before * block
        if records_before and self.is_counted:
            columns = _from(columns, records_before, cycle)
            records_before = 0
        records = tf.data.Dataset.from_tensor_slices(columns).interleave(
            _records(self),
            cycle_length=cycle,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        # One block is read while another is used. `Dataset.shuffle` would not do: once a global
        # seed is set it takes no seed that is a tensor, such as one made of the epoch.
        blocks = records.skip(records_before).batch(block).enumerate(blocks_before)
        blocks = blocks.map(lambda i, x: shuffled(x, i + 1)).prefetch(1)
        return blocks.unbatch().skip(rest)

    def num_records(self, shard_files=(1, 0)) -> int:
        """Number of records in every n-th shard from the i-th on, of `(n, i)`; all known."""
        count, first = shard_files
        return sum(take for _, _, take in self.shards[first::count])


def _from(columns, position, cycle):
    """Columns whose interleave goes on as that of `columns` does after `position` records."""
    paths, skip, take, lost = columns
    state = state_after(position, take.numpy(), min(cycle, len(take)))
    following = tf.range(state.opened, len(take))
    rows = tf.concat([state.shards, following], 0)
    read = tf.concat([tf.constant(state.read, tf.int64), tf.zeros(len(following), tf.int64)], 0)
    paths, skip, take, lost = (tf.gather(x, rows) for x in (paths, skip, take, lost))
    return paths, skip + read, take - read, lost


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
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[storage.utf8(name)]))
    features = tf.train.Features(feature={"image/filename": value})
    return tf.train.Example(features=features).SerializeToString()


def _records(stream):
    """Function from a row of `_columns` to the dataset of the shard's records."""
    is_counted = stream.is_counted

    def records_of(path, skip, take, lost):
        records = tf.data.TFRecordDataset(path).skip(skip)
        if is_counted:
            records = records.ignore_errors()
            records = records.concatenate(tf.data.Dataset.from_tensors(lost).repeat())
        return records.take(take)

    return records_of
