"""Scaling images to a short side, and padding them to a common size: graph functions."""

from collections.abc import Sequence

import tensorflow as tf


def resized(sizes: tf.Tensor, short_px: int, longest_px: int) -> tf.Tensor:
    """Sizes after scaling the short side to `short_px`, or the long one to `longest_px` if less.

    Source: detectron2/data/transforms/augmentation_impl.py, ResizeShortestEdge.

    Args:
        sizes: int32 nx2, heights and widths.
        short_px: short side to scale to.
        longest_px: long side at most.

    Returns:
        int32 nx2.

    Example:
        >>> resized(tf.constant([[480, 640]]), short_px=800, longest_px=1333).numpy().tolist()
        [[800, 1067]]
    """
    sides = tf.cast(sizes, tf.float64)
    short = tf.cast(short_px, tf.float64) / tf.reduce_min(sides, axis=1)
    long = tf.cast(longest_px, tf.float64) / tf.reduce_max(sides, axis=1)
    return tf.maximum(tf.cast(sides * tf.minimum(short, long)[:, None] + 0.5, tf.int32), 1)


def padded_size(largest: tf.Tensor, pad_px: int, square_px: int | None) -> tf.Tensor | list:
    """The height and width to pad to, for the largest height and width of a batch.

    Args:
        largest: int32 2, the largest height and the largest width.
        pad_px: padded sizes are multiples of it.
        square_px: side of the square that all images are padded to; None for no square.
    """
    if square_px:
        return [square_px, square_px]
    return -(-largest // pad_px) * pad_px


def scaled(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Scales uint8 HxWx3 to another height and width, bilinear and antialiased as PIL does it."""
    return tf.cast(tf.round(tf.image.resize(image, size, antialias=True)), tf.uint8)


def padded(
    image: tf.Tensor,
    size: tf.Tensor | list,
    fill: Sequence[int],
    square_px: int | None = None,
) -> tf.Tensor:
    """Pads an image to the right and below.

    Args:
        image: uint8 HxWx3.
        size: height and width to pad to, returned by `padded_size`.
        fill: color of the padding, 3.
        square_px: side of the square that makes the shape static; None for no square.

    Returns:
        uint8 of that height and width.
    """
    fill = tf.constant(fill, tf.uint8)
    height, width, _ = tf.unstack(tf.shape(image))
    right = tf.broadcast_to(fill, [height, size[1] - width, 3])
    below = tf.broadcast_to(fill, [size[0] - height, size[1], 3])
    image = tf.concat([tf.concat([image, right], axis=1), below], axis=0)
    return tf.ensure_shape(image, [square_px or None, square_px or None, 3])
