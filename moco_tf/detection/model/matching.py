"""Anchor and proposal matching, and subsampling for the losses."""

import tensorflow as tf

from moco_tf.detection.data.objects import CROWD, EMPTY
from moco_tf.detection.model import boxes as box_ops

# A box with more than this share of its area in a crowd region is no negative.
CROWD_SHARE = 0.5


def match(
    boxes: tf.Tensor,
    truth: tf.Tensor,
    label: tf.Tensor,
    low: float,
    high: float,
    low_quality: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Matches each box to the instance that it overlaps most.

    Args:
        boxes: float32 NxAx4, or Ax4 for all images.
        truth: float32 NxGx4, the boxes of the instances; rows without an instance are 0.
        label: int32 NxG, classes of the instances from 0, `EMPTY` or `CROWD`.
        low: a box with a lower IoU is negative.
        high: a box with at least this IoU is positive.
        low_quality: makes the boxes with an instance's highest IoU positive too, however low it is.

    Returns:
        index: int32 NxA, the row of the matched instance; meaningless where the IoU is 0.
        positive: bool NxA.
        negative: bool NxA. Some boxes are neither.

    Source: detectron2/modeling/matcher.py. It drops crowd regions, so that boxes inside them are
    negative.
    """
    boxes = tf.stop_gradient(boxes)
    shape = [truth.shape[0], tf.shape(boxes)[-2]]

    def compare(row, best, index, is_nearest, in_crowd):
        box = truth[:, row, None]  # Nx1x4
        category = label[:, row, None]  # Nx1
        overlap = tf.where(category >= 0, box_ops.iou(boxes, box), 0.0)  # NxA
        highest = tf.reduce_max(overlap, axis=1, keepdims=True)
        is_nearest |= (overlap == highest) & (highest > 0)
        in_crowd |= (category == CROWD) & (box_ops.share_inside(boxes, box) > CROWD_SHARE)
        index = tf.where(overlap > best, row, index)
        return row + 1, tf.maximum(best, overlap), index, is_nearest, in_crowd

    # One instance after the other, up to the last row that any image uses. All at once would take
    # memory of NxAxG, gigabytes for large images.
    rows = tf.reduce_max(tf.where(label != EMPTY, tf.range(1, label.shape[1] + 1), 0))
    nowhere = tf.zeros(shape, tf.bool)
    _, best, index, is_nearest, in_crowd = tf.while_loop(
        lambda row, *_: row < rows,
        compare,
        (0, tf.zeros(shape), tf.zeros(shape, tf.int32), nowhere, nowhere),
    )
    positive = best >= high
    if low_quality:
        positive |= is_nearest
    return index, positive, (best < low) & ~positive & ~in_crowd


def sample(
    positive: tf.Tensor,
    negative: tf.Tensor,
    keys: tf.Tensor,
    number: int,
    positive_share: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws boxes for the losses without replacement, positives first.

    Args:
        positive: bool NxA, returned by `match`.
        negative: bool NxA, returned by `match`.
        keys: int64 Nx2, keys of TensorFlow's stateless draws, one for each image.
        number: B, boxes to draw in each image.
        positive_share: share of positives at most; negatives fill the rest.

    Returns:
        index: int32 NxB.
        positive: bool NxB; all positives are in the first int(number * positive_share).
        is_drawn: bool NxB, false where an image has fewer than B candidates.

    Source: detectron2/modeling/sampling.py.
    """
    size = tf.shape(positive)[1:]
    u = tf.stack(
        [tf.random.stateless_uniform(size, key, alg="philox") for key in tf.unstack(keys)]
    )  # NxA
    max_positives = tf.minimum(int(number * positive_share), size[0])
    highest = tf.math.top_k(tf.where(positive, u, -1.0), max_positives).values  # NxP
    drawn_positive = positive & (u >= highest[:, -1:])
    priority = tf.where(drawn_positive, 2 + u, tf.where(negative, 1 + u, 0.0))
    priority, index = tf.math.top_k(priority, tf.minimum(number, size[0]))
    missing = [[0, 0], [0, number - tf.shape(index)[1]]]
    index, priority = (
        tf.ensure_shape(tf.pad(x, missing), [keys.shape[0], number]) for x in (index, priority)
    )  # NxB
    return index, priority >= 2, priority >= 1
