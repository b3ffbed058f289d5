"""Images that cannot be decoded: found, replaced and named, without moving any other sample."""

import os

import tensorflow as tf

NAME_BYTES = 120


def encode_names(names):
    """String vector to uint8 n x 120: the end of each name, zero-padded, for the device."""
    start = tf.maximum(tf.strings.length(names) - NAME_BYTES, 0)
    tails = tf.strings.substr(names, start, tf.fill(tf.shape(names), NAME_BYTES))
    return tf.io.decode_raw(tails, tf.uint8, fixed_length=NAME_BYTES)


def decode_names(encoded):
    """What `encode_names` made, as an array, back to a list of str."""
    return [bytes(name).rstrip(b"\0").decode(errors="replace") for name in encoded]


def mark(chunks, views, name):
    """Adds names and views of each chunk's examples, zeros and `ok` = false where there are none.

    `ignore_errors` drops a failing element. Here that is a chunk, which is then made again one by
    one, so that no other sample moves. (One data set for each example is simpler, and costs as much
    as decoding the image.)

    Args:
        chunks: `tf.data.Dataset` of n examples each: a dict with `slot`, `key`, perhaps more.
        views: graph function from (key, slot) of one example to a dict of its views.
        name: graph function from the key to a string, which may fail, too.

    Returns:
        `tf.data.Dataset` of the chunks with `name` (string n), their views and `ok` (bool n).
    """

    def named(example):
        return example | {"name": name(example["key"])}

    def good(example):
        return named(example) | views(example["key"], example["slot"]) | {"ok": True}

    def one(example):
        made = _patiently(good, example)
        blank = {n: tf.zeros(spec.shape, spec.dtype) for n, spec in made.element_spec.items()}
        nameless = tf.data.Dataset.from_tensors(blank | example)
        return made.concatenate(_patiently(named, blank | example)).concatenate(nameless).take(1)

    def make(chunk):
        n = chunk["slot"].shape[0]
        examples = tf.data.Dataset.from_tensor_slices(chunk)
        quick = examples.map(good).batch(n, drop_remainder=True)
        careful = examples.flat_map(one).batch(n, drop_remainder=True)
        return quick.ignore_errors().concatenate(careful).take(1)

    return chunks.interleave(
        make,
        cycle_length=max(16, os.cpu_count()),  # more than cores: remote files are waited for
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _patiently(make, example):
    """Data set of `make(example)`, or of nothing if it failed three times."""
    # Storage may fail for a moment.
    made = tf.data.Dataset.from_tensors(example).map(make).ignore_errors()
    return made.concatenate(made).concatenate(made).take(1)


def replace(batch, views, group_rows):
    """Fills bad slots with the next good image of their BN group, augmented by their own draws.

    Args:
        batch: chunks of `mark` joined.
        views: as for `mark`.
        group_rows: rows of a BN group.

    Returns:
        The batch without `key` and `slot`.
    """
    key, slot, ok = batch.pop("key"), batch.pop("slot"), batch["ok"]

    def fill():
        rows = tf.where(~ok)[:, 0]
        donors = tf.gather(_donors(ok, group_rows), rows)
        names = [name for name in batch if name not in ("ok", "name")]

        def view(row, donor):
            return views(tf.gather(key, donor), tf.gather(slot, row))

        new = tf.map_fn(
            lambda pair: _patiently(view, pair).get_single_element(),
            (rows, donors),
            fn_output_signature={
                name: tf.TensorSpec(batch[name].shape[1:], batch[name].dtype) for name in names
            },
        )
        return batch | {
            name: tf.tensor_scatter_nd_update(batch[name], rows[:, None], new[name])
            for name in names
        }

    # Without any good one the rows stay black: how much of that a run bears is not decided here.
    return tf.cond(tf.reduce_all(ok) | ~tf.reduce_any(ok), lambda: batch, fill)


def _donors(ok, group_rows):
    """For each row, the next good one, cyclically in its BN group, or in the batch if none is."""
    n = ok.shape[0]

    def next_good(ok):
        group = ok.shape[1]
        steps = (tf.range(group)[:, None] + tf.range(group)) % group  # row, then those after it
        distance = tf.argmax(tf.cast(tf.gather(ok, steps, axis=1), tf.int32), axis=2)
        return (tf.range(group, dtype=tf.int64) + distance) % group

    groups = tf.reshape(ok, [-1, min(group_rows, n)])
    first = tf.range(0, n, groups.shape[1], dtype=tf.int64)[:, None]
    in_group = tf.reshape(next_good(groups) + first, [n])
    in_batch = next_good(ok[None])[0]
    has_good = tf.repeat(tf.reduce_any(groups, axis=1), groups.shape[1])
    return tf.where(has_good, in_group, in_batch)
