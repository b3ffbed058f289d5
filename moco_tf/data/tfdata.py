"""Building blocks of the input pipelines: image order, chunks of examples, joins and splits."""

import functools

import tensorflow as tf

from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.random_key import random_key
from moco_tf.data.sources import Source, Stream

# Functions that tf.data calls need no AutoGraph, which multiplies the time to build a dataset.
no_autograph = tf.autograph.experimental.do_not_convert
# Traced once, however often a pipeline calls it: most of the time to build a dataset goes there.
traced_once = functools.partial(tf.function, autograph=False)


def image_of_slot(slot, batch: int, num_examples: int, seed: int) -> tf.Tensor:
    """Number of the image in a slot: each epoch a new permutation, without its incomplete batch.

    Args:
        slot: int64, scalar or vector of slots of one epoch.
        batch: rows of the global batch.
        num_examples: number of images in the source.
        seed: seed of the run.

    Returns:
        int64 of the same shape, in [0, num_examples).
    """
    epoch_slots = num_examples // batch * batch
    key = random_key("image order", seed, tf.reshape(slot, [-1])[0] // epoch_slots)
    return tf.random.experimental.index_shuffle(slot % epoch_slots, key, num_examples - 1)


def examples(
    source: Source | Stream,
    layout: BatchLayout,
    *,
    seed: int,
    shuffle_buffer: int,
    host: int = 0,
    start_step: int = 0,
    shard_files: bool = False,
    epochs: tf.data.Dataset | None = None,
) -> tf.data.Dataset:
    """The keys of the images that a host trains on, in order, `chunk_rows(layout)` at a time.

    Args:
        source: `Source` or `Stream` of images.
        layout: `BatchLayout`.
        seed: seed of the run.
        shuffle_buffer: records that a `Stream` holds in memory.
        host: number of this host.
        start_step: first step to yield.
        shard_files: each host reads files of its own; for a `Stream`.
        epochs: int64, the numbers of the epochs to yield to a single host; None: all from
            `start_step` on.

    Returns:
        `tf.data.Dataset` of dicts:
            slot: int64 n, the numbers of the samples in the whole run.
            key: int64 n, image numbers; or string n, records of a `Stream`.
    """
    rows = layout.host_rows
    first_row = host * rows
    chunk = chunk_rows(layout)
    steps_per_epoch = source.num_examples // layout.batch

    def steps_of(epoch):
        return tf.data.Dataset.range(epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch)

    @no_autograph
    def slots_of_step(step):
        return step * layout.batch + first_row + tf.range(rows, dtype=tf.int64)

    def slots_of(steps):
        return steps.map(slots_of_step)

    steps = tf.data.Dataset.range(start_step, tf.int64.max)
    if not isinstance(source, Stream):

        @no_autograph
        def with_key(slots):
            index = image_of_slot(slots, layout.batch, source.num_examples, seed)
            return {"slot": slots, "key": index}

        steps = steps if epochs is None else epochs.flat_map(steps_of)
        return slots_of(steps).map(with_key).unbatch().batch(chunk, drop_remainder=True)

    if shard_files:
        batch = rows
        shards = (layout.hosts, host)
    else:
        batch = layout.batch
        shards = (1, 0)

    def records_of(epoch):
        # A host with few records in its files sees them again, so that each epoch is as long.
        records = source.epoch(seed, epoch, shuffle_buffer, shards)
        return records.repeat().take(steps_per_epoch * batch)

    def records_from(epoch, offset):
        if not source.is_counted:
            return records_of(epoch).skip(offset)
        start = offset % source.num_records(shards)
        records = source.epoch(seed, epoch, shuffle_buffer, shards, start)
        again = source.epoch(seed, epoch, shuffle_buffer, shards).repeat()
        return records.concatenate(again).take(steps_per_epoch * batch - offset)

    def pairs_of(steps, records):
        return tf.data.Dataset.zip({"slot": slots_of(steps).unbatch(), "key": records})

    if epochs is None:
        epoch, offset = divmod(start_step, steps_per_epoch)
        following = tf.data.Dataset.range(epoch + 1, tf.int64.max).flat_map(records_of)
        records = records_from(epoch, offset * batch).concatenate(following)
        if batch > rows:
            records = records.batch(batch).map(lambda r: r[first_row : first_row + rows]).unbatch()
        pairs = pairs_of(steps, records)
    else:
        pairs = epochs.flat_map(lambda epoch: pairs_of(steps_of(epoch), records_of(epoch)))
    return pairs.batch(chunk, drop_remainder=True)


def split(data: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Splits each batch into `count` batches of equal length, in order."""

    @no_autograph
    def reshape(batch):
        return {name: tf.reshape(x, [count, -1, *x.shape[1:]]) for name, x in batch.items()}

    return data.map(reshape).unbatch()


def join(data: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Joins each `count` batches into one, the reverse of `split`."""

    @no_autograph
    def reshape(batches):
        return {name: tf.reshape(x, [-1, *x.shape[2:]]) for name, x in batches.items()}

    return data.batch(count, drop_remainder=True).map(reshape)


def endless(data: tf.data.Dataset) -> tf.data.Dataset:
    """Declares data infinite, so that tf.distribute keeps its static shapes."""
    return data.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def chunk_rows(layout: BatchLayout) -> int:
    """Examples in a chunk: the largest divisor of a replica's rows up to 16.

    Examples are decoded in chunks to share the cost of starting a tf.data function.
    """
    return max(n for n in range(1, 17) if layout.replica_rows % n == 0)
