"""Boxes: x1, y1, x2, y2 in px, continuous; pixel i covers [i, i + 1).

Source: detectron2/structures/boxes.py, detectron2/modeling/box_regression.py.
"""

import math

import tensorflow as tf

# Widths and heights grow by at most 1000/16 in one step, so that exp cannot overflow.
MAX_LOG_SCALE = math.log(1000 / 16)


def area(boxes):
    """Areas, px^2: ...x4 to ...; 0 for boxes turned inside out."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    return tf.maximum(x2 - x1, 0) * tf.maximum(y2 - y1, 0)


def intersection(a, b):
    """Areas that boxes have in common, px^2: ...x4, ...x4 to ...."""
    low = tf.maximum(a[..., :2], b[..., :2])
    return area(tf.concat([low, tf.minimum(a[..., 2:], b[..., 2:])], axis=-1))


def iou(a, b):
    """Intersection over union, 0 where both are empty: ...x4, ...x4 to ...."""
    common = intersection(a, b)
    return tf.math.divide_no_nan(common, area(a) + area(b) - common)


def share_inside(boxes, regions):
    """Share of the boxes' own areas within regions: ...x4, ...x4 to ...."""
    return tf.math.divide_no_nan(intersection(boxes, regions), area(boxes))


def clip(boxes, size):
    """Cuts boxes off at the borders of their images.

    Args:
        boxes: float32 Nx...x4.
        size: int32 Nx2, heights and widths, px.
    """
    height, width = tf.unstack(tf.cast(size, tf.float32), axis=-1)
    limit = tf.stack([width, height, width, height], axis=-1)  # Nx4
    limit = tf.reshape(limit, [-1, *[1] * (len(boxes.shape) - 2), 4])
    return tf.clip_by_value(boxes, 0.0, limit)


def encode(anchors, boxes, weights):
    """What moves anchors onto boxes, the inverse of `decode`; both must have an area.

    Args:
        anchors, boxes: float32 ...x4.
        weights: 4 numbers, by which the result is multiplied.

    Returns:
        float32 ...x4: shifts of the centre in widths and heights of the anchor, and the logarithms
        of the ratios of width and height.
    """
    centre, size = _centre_and_size(anchors)
    new_centre, new_size = _centre_and_size(boxes)
    return tf.concat([(new_centre - centre) / size, tf.math.log(new_size / size)], -1) * weights


def decode(anchors, deltas, weights):
    """Moves anchors by deltas, as of `encode`: float32 ...x4."""
    centre, size = _centre_and_size(anchors)
    deltas /= weights
    centre += deltas[..., :2] * size
    size *= tf.exp(tf.minimum(deltas[..., 2:], MAX_LOG_SCALE))
    return tf.concat([centre - size / 2, centre + size / 2], axis=-1)


def _centre_and_size(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
