"""Undecodable images: detects, names and replaces them, without moving any other sample."""

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from moco_tf.data.tfdata import no_autograph

NAME_BYTES = 120


def encode_names(names) -> tf.Tensor:
    """String vector to uint8 n x 120, for the device: the end of each name, zero-padded."""
    start = tf.maximum(tf.strings.length(names) - NAME_BYTES, 0)
    tails = tf.strings.substr(names, start, tf.fill(tf.shape(names), NAME_BYTES))
    return tf.io.decode_raw(tails, tf.uint8, fixed_length=NAME_BYTES)


def decode_names(encoded: np.ndarray) -> list[str]:
    """The names that `encode_names` has encoded; uint8 n x 120."""
    return [bytes(name).rstrip(b"\0").decode(errors="replace") for name in encoded]


def make_samples(
    chunks: tf.data.Dataset, make_sample: Callable, name_of: Callable
) -> tf.data.Dataset:
    """Makes the samples of each chunk of examples; zeros where an image cannot be decoded.

    A chunk whose samples all can be made costs no more than a plain `map`. Only another chunk is
    looked at again, to retry its bad examples and to put the good ones where they belong.

    Args:
        chunks: `tf.data.Dataset` of n examples each: dicts with `slot`, `key`, perhaps more.
        make_sample: graph function from the (key, slot) of one example to a dict of tensors.
        name_of: graph function from the key to a string, for messages; it may fail, too.

    Returns:
        `tf.data.Dataset` of the chunks with what `make_sample` made, and with
            ok: bool n, whether the sample could be made.
            name: string n, "" where even that could not be read.
    """

    def named(example):
        return {"name": name_of(example["key"])}

    def complete(example):
        return named(example) | make_sample(example["key"], example["slot"])

    @no_autograph
    def make_chunk(chunk):
        samples = _try_each(complete, chunk, tf.range(chunk["slot"].shape[0]))
        return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(chunk), samples)

    @no_autograph
    def fill_up(chunk, samples):
        n = chunk["slot"].shape[0]

        def retry():
            is_made = _put(tf.zeros([n], tf.bool), samples["row"], _true(samples))
            rows = tf.cast(tf.where(~is_made)[:, 0], tf.int32)
            names = _retry(named, chunk, rows, attempts=3)
            retried = _retry(complete, chunk, rows, attempts=2)
            batch = {name: tf.zeros([n, *x.shape[1:]], x.dtype) for name, x in samples.items()}
            batch["ok"] = tf.zeros([n], tf.bool)
            for part in (names, samples | {"ok": _true(samples)}, retried | {"ok": _true(retried)}):
                batch |= {name: _put(batch[name], part["row"], x) for name, x in part.items()}
            return batch

        batch = tf.cond(
            tf.size(samples["row"]) < n, retry, lambda: samples | {"ok": tf.fill([n], True)}
        )
        del batch["row"]
        return chunk | {name: tf.ensure_shape(x, [n, *x.shape[1:]]) for name, x in batch.items()}

    data = chunks.interleave(
        make_chunk,
        cycle_length=max(16, os.cpu_count()),  # more than cores: remote files are waited for
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return data.map(fill_up, tf.data.AUTOTUNE, deterministic=True)


def _try_each(function, examples, rows):
    """Dataset of one element: `function` of examples, without those that fail.

    The element is a dict of batches; its `row` holds the numbers in `rows` of the others. All
    examples share one tf.data function, which costs as much to start as an image to decode.
    """
    pairs = tf.data.Dataset.from_tensor_slices((examples, rows))
    results = pairs.map(lambda example, row: function(example) | {"row": row}).ignore_errors()
    results = results.batch(tf.size(rows, tf.int64))
    nothing = {
        name: tf.zeros([0, *spec.shape[1:]], spec.dtype)
        for name, spec in results.element_spec.items()
    }
    return results.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)


def _retry(function, examples, rows, attempts):
    """What `function` makes of the examples in `rows`, as a batch of `_try_each`.

    Each is tried several times, since storage may fail for a moment. So a row can occur as often,
    with the same values.
    """
    rows = tf.tile(rows, [attempts])
    some = {name: tf.gather(x, rows) for name, x in examples.items()}
    return _try_each(function, some, rows).get_single_element()


def _true(samples):
    """True for each sample."""
    return tf.ones_like(samples["row"], tf.bool)


def _put(x, rows, values):
    """`x` with `values` in `rows`."""
    return tf.tensor_scatter_nd_update(x, rows[:, None], values)


def replace_bad(batch: dict, make_sample: Callable, group_rows: int) -> dict:
    """Fills each bad row with the next good image of its BN group, augmented by the row's draws.

    Args:
        batch: chunks of `make_samples`, joined to the rows of a step.
        make_sample: the function that `make_samples` was given.
        group_rows: rows of a BN group.

    Returns:
        The batch without `key` and `slot`. If none of its images is good, its rows stay zero.
    """
    key = batch.pop("key")
    slot = batch.pop("slot")
    ok = batch["ok"]

    def fill():
        bad_rows = tf.where(~ok)[:, 0]
        donor_rows = tf.gather(_donors(ok, group_rows), bad_rows)
        examples = {"key": tf.gather(key, donor_rows), "slot": tf.gather(slot, bad_rows)}

        def complete(example):
            return make_sample(example["key"], example["slot"])

        samples = _retry(complete, examples, tf.range(tf.size(bad_rows)), attempts=3)
        rows = tf.gather(bad_rows, samples.pop("row"))
        num_made = tf.size(tf.unique(rows).y)
        # An image that could be decoded a moment ago is there; storage that is lost ends the run.
        with tf.control_dependencies([tf.debugging.assert_equal(num_made, tf.size(bad_rows))]):
            return batch | {name: _put(batch[name], rows, x) for name, x in samples.items()}

    # The training loop decides how many bad images a run may have, not this function.
    return tf.cond(tf.reduce_all(ok) | ~tf.reduce_any(ok), lambda: batch, fill)


def _donors(ok, group_rows):
    """The row whose image each row shows: int64 n.

    That is the next good row, cyclically in the row's BN group, or in the batch if the group has
    none.
    """
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
