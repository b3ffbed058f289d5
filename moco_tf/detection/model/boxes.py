"""Box operations: area, IoU, clipping, and the deltas that move anchors onto boxes.

Boxes are x1, y1, x2, y2 in px, continuous: pixel i covers [i, i + 1).

Source: detectron2/structures/boxes.py, detectron2/modeling/box_regression.py.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

# Widths and heights grow by at most 1000/16 in one step, so that exp cannot overflow.
MAX_LOG_SCALE = math.log(1000 / 16)


def area(boxes: tf.Tensor) -> tf.Tensor:
    """Areas, px^2: ...x4 to ...; 0 for boxes turned inside out."""
    x1, y1, x2, y2 = tf.unstack(boxes, axis=-1)
    return tf.maximum(x2 - x1, 0) * tf.maximum(y2 - y1, 0)


def intersection(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Areas of the intersections of boxes, px^2: ...x4, ...x4 to ...."""
    low = tf.maximum(a[..., :2], b[..., :2])
    return area(tf.concat([low, tf.minimum(a[..., 2:], b[..., 2:])], axis=-1))


def iou(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Intersection over union, 0 where both boxes are empty: ...x4, ...x4 to ...."""
    common = intersection(a, b)
    return tf.math.divide_no_nan(common, area(a) + area(b) - common)


def share_inside(boxes: tf.Tensor, regions: tf.Tensor) -> tf.Tensor:
    """Share of each box's area that lies within a region: ...x4, ...x4 to ...."""
    return tf.math.divide_no_nan(intersection(boxes, regions), area(boxes))


def clip(boxes: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Clips boxes to their images.

    Args:
        boxes: float32 Nx...x4.
        size: int32 Nx2, heights and widths of the images, px.

    Returns:
        float32 Nx...x4.
    """
    height, width = tf.unstack(tf.cast(size, tf.float32), axis=-1)
    limit = tf.stack([width, height, width, height], axis=-1)  # Nx4
    limit = tf.reshape(limit, [-1, *[1] * (len(boxes.shape) - 2), 4])
    return tf.clip_by_value(boxes, 0.0, limit)


def encode(anchors: tf.Tensor, boxes: tf.Tensor, weights: Sequence[float]) -> tf.Tensor:
    """Deltas that move anchors onto boxes, the inverse of `decode`.

    Args:
        anchors: float32 ...x4, each with an area.
        boxes: float32 ...x4, each with an area.
        weights: 4 numbers that multiply the deltas.

    Returns:
        float32 ...x4: shifts of the center in widths and heights of the anchor, then the logarithms
        of the ratios of width and height.

    Example:
        >>> anchor, box = tf.constant([0.0, 0, 10, 10]), tf.constant([5.0, 0, 15, 10])
        >>> encode(anchor, box, (1.0, 1.0, 1.0, 1.0)).numpy().tolist()
        [0.5, 0.0, 0.0, 0.0]
    """
    center, size = _center_and_size(anchors)
    new_center, new_size = _center_and_size(boxes)
    return tf.concat([(new_center - center) / size, tf.math.log(new_size / size)], -1) * weights


def decode(anchors: tf.Tensor, deltas: tf.Tensor, weights: Sequence[float]) -> tf.Tensor:
    """Moves anchors by deltas, the inverse of `encode`.

    Args:
        anchors: float32 ...x4.
        deltas: float32 ...x4, in the form returned by `encode`.
        weights: 4 numbers that divide the deltas.

    Returns:
        float32 ...x4.
    """
    center, size = _center_and_size(anchors)
    deltas /= weights
    center += deltas[..., :2] * size
    size *= tf.exp(tf.minimum(deltas[..., 2:], MAX_LOG_SCALE))
    return tf.concat([center - size / 2, center + size / 2], axis=-1)


def _center_and_size(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
