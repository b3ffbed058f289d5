"""The region proposal network: which anchors hold something, and where it is exactly.

Source: arXiv:1506.01497; detectron2/modeling/proposal_generator/rpn.py.
"""

import keras
import tensorflow as tf
from keras import layers

from moco_tf.detection.model import boxes as box_ops
from moco_tf.detection.model import matching
from moco_tf.detection.model.nms import nms

WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # of the deltas
NEGATIVE_IOU, POSITIVE_IOU, SAMPLED, POSITIVE_SHARE = 0.3, 0.7, 256, 0.5
NMS_IOU = 0.7


def rpn_head(channels, anchors):
    """The network on one map; all maps of a pyramid share it.

    Args:
        channels: C, of the maps.
        anchors: A, of a cell.

    Returns:
        A `keras.Model` from NxhxwxC to float32 logits Nx(hwA) and deltas Nx(hwA)x4, in the order of
        `grid_anchors`.
    """

    def conv(x, width, kernel, name, **options):
        initializer = keras.initializers.RandomNormal(0.0, 0.01)
        return layers.Conv2D(
            width, kernel, padding="same", kernel_initializer=initializer, name=name, **options
        )(x)

    maps = keras.Input((None, None, channels), name="maps")
    x = conv(maps, channels, 3, "conv", activation="relu")
    logits = conv(x, anchors, 1, "objectness")
    logits = layers.Reshape((-1,), dtype="float32", name="logits")(logits)
    deltas = conv(x, 4 * anchors, 1, "box")
    deltas = layers.Reshape((-1, 4), dtype="float32", name="deltas")(deltas)
    return keras.Model(maps, [logits, deltas], name="rpn")


def losses(anchors, logits, deltas, truth, label, keys):
    """The losses of a sample of anchors.

    Args:
        anchors: float32 Ax4, of all levels.
        logits, deltas: float32 NxA and NxAx4.
        truth, label: as of `matching.match`.
        keys: int64 Nx2, of the draws.

    Returns:
        The binary cross-entropy (nats) and the L1 distance of the positives' deltas, both divided
        by the number of anchors that are drawn if there are enough.
    """
    index, positive, negative = matching.match(
        anchors, truth, label, NEGATIVE_IOU, POSITIVE_IOU, low_quality=True
    )
    drawn, positive, counted = matching.sample(positive, negative, keys, SAMPLED, POSITIVE_SHARE)
    logits, deltas, index = (tf.gather(x, drawn, batch_dims=1) for x in (logits, deltas, index))
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(positive, tf.float32), logits=logits
    )  # NxB
    anchors, found = tf.gather(anchors, drawn), tf.gather(truth, index, batch_dims=1)  # NxBx4
    distance = l1(anchors, found, deltas, WEIGHTS, positive)
    number = SAMPLED * truth.shape[0]
    return tf.reduce_sum(tf.where(counted, cross_entropy, 0.0)) / number, distance / number


def l1(boxes, truth, deltas, weights, positive, beta=0.0):
    """Sum of the L1 distances between deltas and those that move positives onto the truth.

    Args:
        boxes, truth, deltas: float32 ...x4.
        weights: of `boxes.encode`.
        positive: bool ....
        beta: of `smooth_l1`, 0 for L1.
    """
    positive = positive[..., None]
    # Others have no truth: any box with an area keeps their logarithms finite.
    unit = tf.constant([0.0, 0.0, 1.0, 1.0])
    boxes, truth = (tf.where(positive, x, unit) for x in (boxes, truth))
    distance = tf.abs(deltas - box_ops.encode(boxes, truth, weights))
    if beta:
        distance = smooth_l1(distance, beta)
    return tf.reduce_sum(tf.where(positive, distance, 0.0))


def smooth_l1(distance, beta=1.0):
    """Distances, at least 0, below beta squared and divided by 2 beta, else less by beta / 2.

    Source: arXiv:1504.08083, equation 3.
    """
    return tf.where(distance < beta, distance**2 / (2 * beta), distance - beta / 2)


def proposals(anchors, logits, deltas, size, before_nms, after_nms):
    """The best boxes of an image, without duplicates.

    Args:
        anchors, logits, deltas: lists with the Ax4, NxA and NxAx4 of each level.
        size: int32 Nx2, heights and widths of the images.
        before_nms: boxes to take of each level at most.
        after_nms: P, boxes to keep at most, of all levels together.

    Returns:
        boxes: float32 NxPx4, without gradient; empty after the last.
        found: bool NxP.
    """
    boxes, scores, levels = [], [], []
    for i, (a, score, delta) in enumerate(zip(anchors, logits, deltas)):
        score, best = tf.math.top_k(score, tf.minimum(before_nms, tf.shape(score)[1]))
        decoded = box_ops.decode(tf.gather(a, best), tf.gather(delta, best, batch_dims=1), WEIGHTS)
        boxes.append(box_ops.clip(decoded, size))
        scores.append(score)
        levels.append(tf.fill(tf.shape(score), i))
    boxes, score, level = (tf.stop_gradient(tf.concat(x, 1)) for x in (boxes, scores, levels))
    score = tf.where(box_ops.area(boxes) > 0, score, float("-inf"))
    index, found = nms(boxes, score, level, NMS_IOU, after_nms)
    return tf.where(found[..., None], tf.gather(boxes, index, batch_dims=1), 0.0), found
