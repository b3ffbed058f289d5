"""Undecodable images: detects, names and replaces them, without moving any other sample."""

import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

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

    `ignore_errors` drops a failing element, here a whole chunk. That chunk is then made a second
    time one example after another, so that no other sample moves. (One dataset for each example
    would be simpler, and costs as much as decoding the image.)

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
        return example | {"name": name_of(example["key"])}

    def complete(example):
        return named(example) | make_sample(example["key"], example["slot"]) | {"ok": True}

    def complete_or_blank(example):
        """The complete example, or else zeros with its name, or else zeros."""
        sample = _with_retries(complete, example)
        spec_of = sample.element_spec
        blank = {name: tf.zeros(spec.shape, spec.dtype) for name, spec in spec_of.items()}
        nameless = tf.data.Dataset.from_tensors(blank | example)
        return (
            sample.concatenate(_with_retries(named, blank | example)).concatenate(nameless).take(1)
        )

    def make_chunk(chunk):
        n = chunk["slot"].shape[0]
        singles = tf.data.Dataset.from_tensor_slices(chunk)
        at_once = singles.map(complete).batch(n, drop_remainder=True)
        in_turn = singles.flat_map(complete_or_blank).batch(n, drop_remainder=True)
        return at_once.ignore_errors().concatenate(in_turn).take(1)

    return chunks.interleave(
        make_chunk,
        cycle_length=max(16, os.cpu_count()),  # more than cores: remote files are waited for
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def _with_retries(function, example):
    """Dataset of `function(example)`, or of nothing if it failed three times."""
    # Storage may fail for a moment.
    attempt = tf.data.Dataset.from_tensors(example).map(function).ignore_errors()
    return attempt.concatenate(attempt).concatenate(attempt).take(1)


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
        names = [name for name in batch if name not in ("ok", "name")]

        def sample(row, donor):
            return make_sample(tf.gather(key, donor), tf.gather(slot, row))

        samples = tf.map_fn(
            lambda rows: _with_retries(sample, rows).get_single_element(),
            (bad_rows, donor_rows),
            fn_output_signature={
                name: tf.TensorSpec(batch[name].shape[1:], batch[name].dtype) for name in names
            },
        )
        return batch | {
            name: tf.tensor_scatter_nd_update(batch[name], bad_rows[:, None], samples[name])
            for name in names
        }

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
