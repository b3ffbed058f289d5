"""What the input pipelines share: slots, examples of slots, batches and their parts."""

import tensorflow as tf

from moco_tf.data.random_key import random_key
from moco_tf.data.sources import Stream

# Nothing here needs AutoGraph, which multiplies the time to build a data set.
plain = tf.autograph.experimental.do_not_convert


def image_of_slot(slot, batch, num_examples, seed):
    """Index of the image in a slot: each epoch a new permutation, without its incomplete batch.

    Args:
        slot: int64, scalar or vector of slots of one epoch.
        batch: rows of the global batch.
        num_examples: images of the source.
        seed: int, of the run.

    Returns:
        int64 of the same shape, in [0, num_examples).
    """
    epoch_slots = num_examples // batch * batch
    key = random_key("image order", seed, tf.reshape(slot, [-1])[0] // epoch_slots)
    return tf.random.experimental.index_shuffle(slot % epoch_slots, key, num_examples - 1)


def examples(source, layout, host, seed, start_step, shuffle_buffer, shard_files):
    """This host's examples in order, in chunks: `slot` (int64) and `key`."""
    first, rows = host * layout.host_rows, layout.host_rows
    chunk = chunk_rows(layout)
    slots = tf.data.Dataset.range(start_step, tf.int64.max).map(
        lambda step: step * layout.batch + first + tf.range(rows, dtype=tf.int64)
    )
    if not isinstance(source, Stream):

        def find(slots):
            index = image_of_slot(slots, layout.batch, source.num_examples, seed)
            return {"slot": slots, "key": index}

        return slots.map(find).unbatch().batch(chunk, drop_remainder=True)

    batch, files = (rows, (layout.hosts, host)) if shard_files else (layout.batch, (1, 0))
    steps_per_epoch = source.num_examples // layout.batch
    epoch, offset = divmod(start_step, steps_per_epoch)
    # A host with few records in its files sees them again, so that each epoch is as long.
    records = tf.data.Dataset.range(epoch, tf.int64.max).flat_map(
        lambda e: (
            source.epoch(seed, e, shuffle_buffer, files).repeat().take(steps_per_epoch * batch)
        )
    )
    # A resume reads the records before it again, without decoding them.
    records = records.skip(offset * batch)
    if batch > rows:
        records = records.batch(batch).map(lambda r: r[first : first + rows]).unbatch()

    pairs = tf.data.Dataset.zip({"slot": slots.unbatch(), "key": records})
    return pairs.batch(chunk, drop_remainder=True)


def split(data, count):
    """Batches to `count` equal parts of each, in turn."""

    def parts(batch):
        return {n: tf.reshape(x, [count, -1, *x.shape[1:]]) for n, x in batch.items()}

    return data.map(parts).unbatch()


def joined(data, count):
    """The reverse of `split`."""

    def join(parts):
        return {n: tf.reshape(x, [-1, *x.shape[2:]]) for n, x in parts.items()}

    return data.batch(count, drop_remainder=True).map(join)


def endless(data):
    """Data that repeats, and says so: it keeps its static shapes when it is distributed."""
    return data.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))


def chunk_rows(layout):
    """Examples that are made together, for little overhead each: a divisor of a replica's rows."""
    return max(n for n in range(1, 17) if layout.replica_rows % n == 0)
