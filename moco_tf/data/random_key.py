"""Seeds of the random numbers in input pipelines: each purpose has its own stream."""

import tensorflow as tf

PURPOSES = ("augmentation", "image order", "record order", "key order")


def random_key(purpose: str, seed: int, number, draw: int | None = None) -> tf.Tensor:
    """Makes the seed of one of TensorFlow's stateless random ops.

    Args:
        purpose: one of `PURPOSES`.
        seed: seed of the run.
        number: int or int64 scalar, what the numbers are for, such as a slot.
        draw: number of the draw, if several independent ones are made for `number`.

    Returns:
        int64, [2].
    """
    stream = len(PURPOSES) * seed + PURPOSES.index(purpose)
    key = tf.stack([tf.constant(stream, tf.int64), tf.cast(number, tf.int64)])
    if draw is None:
        return key
    return tf.random.experimental.stateless_fold_in(key, tf.constant(draw, tf.int64))
