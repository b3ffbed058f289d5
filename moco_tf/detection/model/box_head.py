"""The box head: classes and refined boxes of regions, its losses, and the final detections.

Source: arXiv:1506.01497, arXiv:1612.03144; detectron2/modeling/roi_heads/fast_rcnn.py.
"""

import dataclasses

import keras
import tensorflow as tf
from keras import layers

from moco_tf.detection.model import boxes as box_ops
from moco_tf.detection.model import matching, rpn
from moco_tf.detection.model.nms import nms_of_classes
from moco_tf.detection.model.settings import LOWEST_SCORE

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # factors of the deltas
IOU, POSITIVE_SHARE = 0.5, 0.25
NMS_IOU = 0.5
HIDDEN = 1024


def box_head(
    shape: tuple[int, int, int],
    num_classes: int,
    average_pool: bool = False,
    width_divisor: int = 1,
) -> keras.Model:
    """Builds the network from regions to classes and boxes.

    Args:
        shape: shape of a region, SxSxC.
        num_classes: K.
        average_pool: takes the mean over SxS instead of two linear layers.
        width_divisor: divides the width of the linear layers.

    Returns:
        A `keras.Model` from MxSxSxC to float32 logits Mx(K + 1), the background last, and deltas
        MxKx4.
    """
    regions = keras.Input(shape, name="regions")
    if average_pool:
        x = layers.GlobalAveragePooling2D(name="mean")(regions)
    else:
        x = layers.Flatten(name="flatten")(regions)
        for i in (1, 2):
            x = layers.Dense(
                HIDDEN // width_divisor,
                activation="relu",
                kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
                name=f"fc{i}",
            )(x)

    def dense(units, std, name):
        initializer = keras.initializers.RandomNormal(0.0, std)
        return layers.Dense(units, kernel_initializer=initializer, dtype="float32", name=name)(x)

    logits = dense(num_classes + 1, 0.01, "classes")
    deltas = layers.Reshape((num_classes, 4), dtype="float32", name="deltas")(
        dense(4 * num_classes, 0.001, "boxes")
    )
    return keras.Model(regions, [logits, deltas], name="box")


@dataclasses.dataclass
class SampledRegions:
    """R regions of each image that the heads are trained on.

    Attributes:
        boxes: float32 NxRx4; 0 where no region is drawn.
        positive: bool NxR; all positives are in the first R / 4.
        is_drawn: bool NxR, false where an image has fewer than R candidates.
        index: int32 NxR, the row of the instance that each region is matched to.
    """

    boxes: tf.Tensor
    positive: tf.Tensor
    is_drawn: tf.Tensor
    index: tf.Tensor

    def first(self, number: int) -> "SampledRegions":
        """The first regions of each image."""
        return SampledRegions(
            boxes=self.boxes[:, :number],
            positive=self.positive[:, :number],
            is_drawn=self.is_drawn[:, :number],
            index=self.index[:, :number],
        )


def sample(
    boxes: tf.Tensor,
    is_valid: tf.Tensor,
    truth: tf.Tensor,
    label: tf.Tensor,
    keys: tf.Tensor,
    number: int,
) -> SampledRegions:
    """Draws the regions to train on from the proposals and the instances' own boxes.

    Args:
        boxes: float32 NxPx4, returned by `rpn.proposals`.
        is_valid: bool NxP, returned by `rpn.proposals`.
        truth: float32 NxGx4, boxes of the instances, see `matching.match`.
        label: int32 NxG, their classes, see `matching.match`.
        keys: int64 Nx2, keys of the draws.
        number: R, regions of an image.
    """
    boxes = tf.concat([boxes, truth], axis=1)
    is_valid = tf.concat([is_valid, label >= 0], axis=1)
    index, positive, negative = matching.match(boxes, truth, label, IOU, IOU)
    drawn, positive, is_drawn = matching.sample(
        positive & is_valid, negative & is_valid, keys, number, POSITIVE_SHARE
    )
    boxes = tf.gather(boxes, drawn, batch_dims=1)
    return SampledRegions(
        boxes=tf.where(is_drawn[..., None], boxes, 0.0),
        positive=positive,
        is_drawn=is_drawn,
        index=tf.gather(index, drawn, batch_dims=1),
    )


def losses(
    logits: tf.Tensor,
    deltas: tf.Tensor,
    regions: SampledRegions,
    truth: tf.Tensor,
    label: tf.Tensor,
    beta: float = 0.0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """The losses of the box head.

    Args:
        logits: float32 NxRx(K + 1), output of `box_head`.
        deltas: float32 NxRxKx4, output of `box_head`.
        regions: the regions that were classified, returned by `sample`.
        truth: float32 NxGx4, boxes of the instances, see `matching.match`.
        label: int32 NxG, their classes, see `matching.match`.
        beta: `beta` of `rpn.smooth_l1`; 0 gives plain L1.

    Returns:
        The cross-entropy (nats) and the L1 distance of the deltas of the positives' true classes,
        both divided by N * R.
    """
    background = logits.shape[-1] - 1
    positive = regions.positive
    matched_label = tf.gather(label, regions.index, batch_dims=1)
    target = tf.where(positive, matched_label, background)  # NxR
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=logits)
    deltas = tf.gather(deltas, tf.where(positive, target, 0), batch_dims=2)  # NxRx4
    matched = tf.gather(truth, regions.index, batch_dims=1)  # NxRx4
    distance = rpn.box_distance(regions.boxes, matched, deltas, WEIGHTS, positive, beta)
    number = float(target.shape[0] * target.shape[1])
    cross_entropy = tf.where(regions.is_drawn, cross_entropy, 0.0)
    return tf.reduce_sum(cross_entropy) / number, distance / number


def detections(
    logits: tf.Tensor,
    deltas: tf.Tensor,
    boxes: tf.Tensor,
    is_valid: tf.Tensor,
    size: tf.Tensor,
    max_detections: int,
    lowest_score: float = LOWEST_SCORE,
) -> dict[str, tf.Tensor]:
    """The detections of each image, from the outputs of the box head.

    Args:
        logits: float32 NxPx(K + 1), output of `box_head`.
        deltas: float32 NxPxKx4, output of `box_head`.
        boxes: float32 NxPx4, returned by `rpn.proposals`.
        is_valid: bool NxP, returned by `rpn.proposals`.
        size: int32 Nx2, heights and widths of the images.
        max_detections: D, detections to keep in each image at most.
        lowest_score: a detection needs a higher score.

    Returns:
        Dict of boxes: float32 NxDx4; score: float32 NxD; label: int32 NxD, -1 after the last.
    """
    score = tf.where(is_valid[..., None], tf.nn.softmax(logits)[..., :-1], 0.0)  # NxPxK
    score = tf.where(score > lowest_score, score, float("-inf"))

    def boxes_of(label):
        """Boxes of a class for each image: int32 N to float32 NxPx4."""
        class_deltas = tf.gather(deltas, label, axis=2, batch_dims=1)
        return box_ops.clip(box_ops.decode(boxes, class_deltas, WEIGHTS), size)

    score = tf.transpose(score, [0, 2, 1])
    index, label, score = nms_of_classes(score, boxes_of, NMS_IOU, max_detections)  # NxD
    deltas = tf.gather_nd(deltas, tf.stack([index, label], axis=-1), batch_dims=1)  # NxDx4
    boxes = box_ops.decode(tf.gather(boxes, index, batch_dims=1), deltas, WEIGHTS)
    return filled(box_ops.clip(boxes, size), score, label)


def filled(boxes: tf.Tensor, score: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
    """The detections of each image as a dict.

    Args:
        boxes: float32 NxDx4.
        score: float32 NxD; -inf after the last.
        label: int32 NxD, classes.

    Returns:
        The same dict as `detections`.
    """
    is_kept = score > float("-inf")
    return {
        "boxes": tf.where(is_kept[..., None], boxes, 0.0),
        "score": tf.where(is_kept, score, 0.0),
        "label": tf.where(is_kept, label, -1),
    }
