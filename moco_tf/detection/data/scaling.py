"""Images brought to a size, and padded to one: graph functions."""

import tensorflow as tf


def resized(sizes, short_px, longest_px):
    """Sizes of which the short side is `short_px`, or the long one `longest_px` if that is less.

    Source: detectron2/data/transforms/augmentation_impl.py, ResizeShortestEdge.

    Args:
        sizes: int32 nx2.
        short_px, longest_px: px.

    Returns:
        int32 nx2.
    """
    sides = tf.cast(sizes, tf.float64)
    short = tf.cast(short_px, tf.float64) / tf.reduce_min(sides, axis=1)
    long = tf.cast(longest_px, tf.float64) / tf.reduce_max(sides, axis=1)
    return tf.maximum(tf.cast(sides * tf.minimum(short, long)[:, None] + 0.5, tf.int32), 1)


def padded_size(largest, pad_px, square_px):
    """The height and width to pad to, for the largest height and width of a batch."""
    if square_px:
        return [square_px, square_px]
    return -(-largest // pad_px) * pad_px


def scaled(image, size):
    """uint8 HxWx3 at another size, bilinear and antialiased as PIL does it."""
    return tf.cast(tf.round(tf.image.resize(image, size, antialias=True)), tf.uint8)


def padded(image, size, fill, square_px=0):
    """Pads an image to the right and below, to a height and width."""
    fill, (height, width, _) = tf.constant(fill, tf.uint8), tf.unstack(tf.shape(image))
    right = tf.broadcast_to(fill, [height, size[1] - width, 3])
    below = tf.broadcast_to(fill, [size[0] - height, size[1], 3])
    image = tf.concat([tf.concat([image, right], axis=1), below], axis=0)
    return tf.ensure_shape(image, [square_px or None, square_px or None, 3])
