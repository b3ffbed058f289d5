"""Which boxes are to find which instances, and which of them are trained on."""

import tensorflow as tf

from moco_tf.transfer.detection import boxes as box_ops

CROWD = -2  # label of a region with many instances, none of them outlined
# A box with more of itself than this in a crowd region is no negative.
CROWD_SHARE = 0.5


def match(boxes, truth, label, low, high, low_quality=False):
    """Matches each box to the instance that it overlaps most.

    Args:
        boxes: float32 NxAx4, or Ax4 for all images.
        truth: float32 NxGx4.
        label: int32 NxG: classes from 0; -1 for an empty slot, `CROWD` for a crowd region.
        low: boxes with an IoU below it are negative.
        high: boxes with at least this IoU are positive.
        low_quality: the boxes with an instance's highest IoU, however low, are positive too.

    Returns:
        index: int32 NxA, the slot of the instance; of no meaning if the IoU is 0.
        positive, negative: bool NxA; some boxes are neither.

    Source: detectron2/modeling/matcher.py. It leaves crowd regions out of training, so that what
    lies in them is negative.
    """
    overlap = tf.where(label[:, None] >= 0, box_ops.iou(boxes, truth), 0.0)  # NxAxG
    best = tf.reduce_max(overlap, axis=2)  # NxA
    index = tf.argmax(overlap, axis=2, output_type=tf.int32)
    positive = best >= high
    if low_quality:
        highest = tf.reduce_max(overlap, axis=1, keepdims=True)  # Nx1xG
        positive |= tf.reduce_any((overlap == highest) & (highest > 0), axis=2)
    crowds = tf.where((label == CROWD)[..., None], truth, 0.0)  # NxGx4
    in_crowd = tf.reduce_max(box_ops.share_inside(boxes, crowds), axis=2) > CROWD_SHARE
    return index, positive, (best < low) & ~positive & ~in_crowd


def sample(positive, negative, keys, number, share):
    """Draws boxes to train on, without replacement: positives first.

    Args:
        positive, negative: bool NxA, of `match`.
        keys: int64 Nx2, of TensorFlow's stateless draws.
        number: boxes to draw of each image, B, at most A.
        share: of positives at most; negatives fill the rest.

    Returns:
        index: int32 NxB.
        positive: bool NxB; all in the first int(number * share).
        drawn: bool NxB, false where there are fewer boxes than slots.

    Source: detectron2/modeling/sampling.py.
    """
    size = tf.shape(positive)[1:]
    u = tf.stack(
        [tf.random.stateless_uniform(size, key, alg="philox") for key in tf.unstack(keys)]
    )  # NxA
    most = int(number * share)
    lowest = tf.math.top_k(tf.where(positive, u, -1.0), most).values[:, -1:]  # Nx1
    drawn = positive & (u >= lowest)
    priority = tf.where(drawn, 2 + u, tf.where(negative, 1 + u, 0.0))
    priority, index = tf.math.top_k(priority, number)  # NxB
    return index, priority >= 2, priority >= 1
