"""Seeds of all random draws: each purpose has a stream of its own."""

import tensorflow as tf

PURPOSES = ("augmentation", "image order", "record order", "key order")


def random_key(purpose, seed, number, draw=None):
    """Key for TensorFlow's stateless ops.

    Args:
        purpose: of `PURPOSES`.
        seed: int, of the run.
        number: int or int64 scalar, such as the slot that it is for.
        draw: int, which of several independent ones; None if there is one.

    Returns:
        int64, [2].
    """
    purpose = PURPOSES.index(purpose)
    key = tf.stack(
        [tf.constant(len(PURPOSES) * seed + purpose, tf.int64), tf.cast(number, tf.int64)]
    )
    if draw is None:
        return key
    return tf.random.experimental.stateless_fold_in(key, tf.constant(draw, tf.int64))
