"""Images that cannot be decoded: found, replaced and named, without moving any other sample."""

import tensorflow as tf

NAME_BYTES = 120


def tag(example, ok):
    """What travels with the views to the log."""
    size = tf.strings.length(example["name"])
    tail = tf.strings.substr(example["name"], tf.maximum(size - NAME_BYTES, 0), NAME_BYTES)
    return {"ok": ok, "name": tf.io.decode_raw(tail, tf.uint8, fixed_length=NAME_BYTES)}


def names(tagged):
    """The names in an array of `tag`: uint8 n x 120 to a list of str."""
    return [bytes(name).rstrip(b"\0").decode(errors="replace") for name in tagged]


def mark(examples, views):
    """One element per example: its views and what to replace them by, zeros where that fails.

    `ignore_errors` drops a failing element, here from a data set of its own, so that no
    other sample moves.
    """

    def keep(example):
        return {"key": example["key"], "slot": example["slot"]}

    def good(example):
        return views(example["key"], example["slot"])

    def one(example):
        example = tf.data.Dataset.from_tensors(example)
        made = example.map(good)
        zeros = {name: tf.zeros(spec.shape, spec.dtype) for name, spec in made.element_spec.items()}
        made = tf.data.Dataset.zip(made, example).map(
            lambda views, e: views | tag(e, ok=True) | keep(e)
        )
        blank = example.map(lambda e: zeros | tag(e, ok=False) | keep(e))
        return made.ignore_errors().concatenate(blank).take(1)

    return examples.interleave(
        one, cycle_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def replace(batch, views, group_rows):
    """Fills bad slots with the next good image of their BN group, augmented by their own draws."""
    key, slot, ok = batch.pop("key"), batch.pop("slot"), batch["ok"]

    def fill():
        rows = tf.where(~ok)[:, 0]
        donors = tf.gather(_donors(ok, group_rows), rows)
        spec = {name: tf.TensorSpec(x.shape[1:], x.dtype) for name, x in batch.items()}
        names = [name for name in batch if name not in ("ok", "name")]
        new = tf.map_fn(
            lambda pair: views(tf.gather(key, pair[1]), tf.gather(slot, pair[0])),
            (rows, donors),
            fn_output_signature={name: spec[name] for name in names},
        )
        return batch | {
            name: tf.tensor_scatter_nd_update(batch[name], rows[:, None], new[name])
            for name in names
        }

    return tf.cond(tf.reduce_all(ok), lambda: batch, fill)


def _donors(ok, group_rows):
    """For each row, the next good one, cyclically in its BN group, or in the batch if none is."""
    n = ok.shape[0]

    def next_good(ok):
        group = ok.shape[1]
        steps = (tf.range(group)[:, None] + tf.range(group)) % group  # row, then those after it
        distance = tf.argmax(tf.cast(tf.gather(ok, steps, axis=1), tf.int32), axis=2)
        return (tf.range(group, dtype=tf.int64) + distance) % group

    check = tf.debugging.Assert(
        tf.reduce_any(ok), ["No image of a whole batch could be decoded. Is `data.source` right?"]
    )
    with tf.control_dependencies([check] if check is not None else []):
        groups = tf.reshape(ok, [-1, min(group_rows, n)])
    first = tf.range(0, n, groups.shape[1], dtype=tf.int64)[:, None]
    in_group = tf.reshape(next_good(groups) + first, [n])
    in_batch = next_good(ok[None])[0]
    has_good = tf.repeat(tf.reduce_any(groups, axis=1), groups.shape[1])
    return tf.where(has_good, in_group, in_batch)
