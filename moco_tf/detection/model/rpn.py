"""The region proposal network (RPN): head, losses and proposals.

Source: arXiv:1506.01497; detectron2/modeling/proposal_generator/rpn.py.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import layers

from moco_tf.detection.model import boxes as box_ops
from moco_tf.detection.model import matching
from moco_tf.detection.model.nms import nms

WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # factors of the deltas
NEGATIVE_IOU, POSITIVE_IOU = 0.3, 0.7
SAMPLED, POSITIVE_SHARE = 256, 0.5  # anchors of an image in the losses
NMS_IOU = 0.7


def rpn_head(channels: int, anchors_per_cell: int) -> keras.Model:
    """Builds the network that runs on one map; all maps of a pyramid share it.

    Args:
        channels: C, channels of the map.
        anchors_per_cell: A.

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
    logits = conv(x, anchors_per_cell, 1, "objectness")
    logits = layers.Reshape((-1,), dtype="float32", name="logits")(logits)
    deltas = conv(x, 4 * anchors_per_cell, 1, "box")
    deltas = layers.Reshape((-1, 4), dtype="float32", name="deltas")(deltas)
    return keras.Model(maps, [logits, deltas], name="rpn")


def losses(
    anchors: tf.Tensor,
    logits: tf.Tensor,
    deltas: tf.Tensor,
    truth: tf.Tensor,
    label: tf.Tensor,
    keys: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The RPN's losses over a sample of anchors.

    Args:
        anchors: float32 Ax4, the anchors of all levels.
        logits: float32 NxA, objectness.
        deltas: float32 NxAx4.
        truth: float32 NxGx4, boxes of the instances, see `matching.match`.
        label: int32 NxG, their classes, see `matching.match`.
        keys: int64 Nx2, keys of the draws of anchors.

    Returns:
        The binary cross-entropy (nats) and the L1 distance of the positives' deltas, both divided
        by `SAMPLED` anchors an image, even where fewer are drawn.
    """
    index, positive, negative = matching.match(
        anchors, truth, label, NEGATIVE_IOU, POSITIVE_IOU, low_quality=True
    )
    drawn, positive, is_drawn = matching.sample(positive, negative, keys, SAMPLED, POSITIVE_SHARE)
    logits = tf.gather(logits, drawn, batch_dims=1)  # NxB
    deltas = tf.gather(deltas, drawn, batch_dims=1)  # NxBx4
    index = tf.gather(index, drawn, batch_dims=1)  # NxB
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(positive, tf.float32), logits=logits
    )  # NxB
    anchors = tf.gather(anchors, drawn)  # NxBx4
    matched = tf.gather(truth, index, batch_dims=1)  # NxBx4
    distance = box_distance(anchors, matched, deltas, WEIGHTS, positive)
    number = SAMPLED * truth.shape[0]
    return tf.reduce_sum(tf.where(is_drawn, cross_entropy, 0.0)) / number, distance / number


def box_distance(
    boxes: tf.Tensor,
    truth: tf.Tensor,
    deltas: tf.Tensor,
    weights: Sequence[float],
    positive: tf.Tensor,
    beta: float = 0.0,
) -> tf.Tensor:
    """Sum of the L1 distances between deltas and those that move positives onto the truth.

    Args:
        boxes: float32 ...x4, anchors or proposals.
        truth: float32 ...x4, the box of the instance that each one is matched to.
        deltas: float32 ...x4, predicted.
        weights: 4 numbers, see `boxes.encode`.
        positive: bool ..., the boxes that count.
        beta: `beta` of `smooth_l1`; 0 gives plain L1.
    """
    positive = positive[..., None]
    # Boxes that do not count have no truth; a unit box keeps their logarithms finite.
    unit = tf.constant([0.0, 0.0, 1.0, 1.0])
    boxes = tf.where(positive, boxes, unit)
    truth = tf.where(positive, truth, unit)
    distance = tf.abs(deltas - box_ops.encode(boxes, truth, weights))
    if beta:
        distance = smooth_l1(distance, beta)
    return tf.reduce_sum(tf.where(positive, distance, 0.0))


def smooth_l1(distance: tf.Tensor, beta: float = 1.0) -> tf.Tensor:
    """Smooth L1 loss of distances: d^2 / (2 beta) below beta, d - beta / 2 above.

    Args:
        distance: float32 ..., at least 0.
        beta: where the parabola ends, above 0.

    Source: arXiv:1504.08083, equation 3.
    """
    return tf.where(distance < beta, distance**2 / (2 * beta), distance - beta / 2)


def proposals(
    anchors: Sequence[tf.Tensor],
    logits: Sequence[tf.Tensor],
    deltas: Sequence[tf.Tensor],
    size: tf.Tensor,
    before_nms: int,
    after_nms: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The best boxes of each image, without duplicates.

    Args:
        anchors: float32 Ax4 of each level.
        logits: float32 NxA of each level.
        deltas: float32 NxAx4 of each level.
        size: int32 Nx2, heights and widths of the images.
        before_nms: boxes to take from each level at most.
        after_nms: P, boxes to keep at most, of all levels together.

    Returns:
        boxes: float32 NxPx4, without gradient; 0 after the last proposal.
        is_valid: bool NxP, false after the last proposal.
    """
    boxes, scores, levels = [], [], []
    for level, (grid, score, delta) in enumerate(zip(anchors, logits, deltas, strict=True)):
        score, best = tf.math.top_k(score, tf.minimum(before_nms, tf.shape(score)[1]))
        delta = tf.gather(delta, best, batch_dims=1)
        decoded = box_ops.decode(tf.gather(grid, best), delta, WEIGHTS)
        boxes.append(box_ops.clip(decoded, size))
        scores.append(score)
        levels.append(tf.fill(tf.shape(score), level))
    boxes = tf.stop_gradient(tf.concat(boxes, 1))
    score = tf.stop_gradient(tf.concat(scores, 1))
    level = tf.stop_gradient(tf.concat(levels, 1))
    score = tf.where(box_ops.area(boxes) > 0, score, float("-inf"))
    index, is_valid = nms(boxes, score, level, NMS_IOU, after_nms)
    boxes = tf.where(is_valid[..., None], tf.gather(boxes, index, batch_dims=1), 0.0)
    return boxes, is_valid
