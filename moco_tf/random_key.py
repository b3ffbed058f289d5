"""Seeds of all random draws: each purpose has a stream of its own."""

import tensorflow as tf

PURPOSES = ("augmentation", "image order", "record order", "key order")


def random_key(purpose, seed, number):
    """Key for TensorFlow's stateless ops.

    Args:
        purpose: of `PURPOSES`.
        seed: int, of the run.
        number: int or int64 scalar, which draw of this purpose.

    Returns:
        int64, [2].
    """
    purpose = PURPOSES.index(purpose)
    return tf.stack(
        [tf.constant(len(PURPOSES) * seed + purpose, tf.int64), tf.cast(number, tf.int64)]
    )
