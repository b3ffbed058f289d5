"""Which boxes are to find which instances, and which of them are trained on."""

import tensorflow as tf

from moco_tf.detection.model import boxes as box_ops

# Labels that are no class: of a slot without an object, and of a region with many of them, none of
# them outlined.
EMPTY, CROWD = -1, -2
# A box with more of itself than this in a crowd region is no negative.
CROWD_SHARE = 0.5


def match(boxes, truth, label, low, high, low_quality=False):
    """Matches each box to the instance that it overlaps most.

    Args:
        boxes: float32 NxAx4, or Ax4 for all images.
        truth: float32 NxGx4.
        label: int32 NxG: classes from 0, `EMPTY` or `CROWD`.
        low: boxes with an IoU below it are negative.
        high: boxes with at least this IoU are positive.
        low_quality: the boxes with an instance's highest IoU, however low, are positive too.

    Returns:
        index: int32 NxA, the slot of the instance; of no meaning if the IoU is 0.
        positive, negative: bool NxA; some boxes are neither.

    Source: detectron2/modeling/matcher.py. It leaves crowd regions out of training, so that what
    lies in them is negative.
    """
    boxes = tf.stop_gradient(boxes)
    shape = [truth.shape[0], tf.shape(boxes)[-2]]

    def compare(slot, best, index, nearest, in_crowd):
        one, kind = truth[:, slot, None], label[:, slot, None]  # Nx1x4, Nx1
        overlap = tf.where(kind >= 0, box_ops.iou(boxes, one), 0.0)  # NxA
        highest = tf.reduce_max(overlap, axis=1, keepdims=True)
        nearest |= (overlap == highest) & (highest > 0)
        in_crowd |= (kind == CROWD) & (box_ops.share_inside(boxes, one) > CROWD_SHARE)
        index = tf.where(overlap > best, slot, index)
        return slot + 1, tf.maximum(best, overlap), index, nearest, in_crowd

    # One slot after the other, up to the last that any image needs: all at once would take memory
    # of NxAxG, gigabytes for large images.
    slots = tf.reduce_max(tf.where(label != EMPTY, tf.range(1, label.shape[1] + 1), 0))
    none, no = tf.zeros(shape, tf.int32), tf.zeros(shape, tf.bool)
    _, best, index, nearest, in_crowd = tf.while_loop(
        lambda slot, *_: slot < slots, compare, (0, tf.zeros(shape), none, no, no)
    )
    positive = best >= high
    if low_quality:
        positive |= nearest
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
