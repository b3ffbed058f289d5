"""The box head: the class of a region, and where its box is exactly.

Source: arXiv:1506.01497, arXiv:1612.03144; detectron2/modeling/roi_heads/fast_rcnn.py.
"""

import keras
import tensorflow as tf
from keras import layers

from moco_tf.detection.model import boxes as box_ops
from moco_tf.detection.model import matching, rpn
from moco_tf.detection.model.nms import nms

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas
IOU, POSITIVE_SHARE = 0.5, 0.25
NMS_IOU, LOWEST_SCORE = 0.5, 0.05
CANDIDATES = 5000  # boxes before NMS at most: classes x regions would be 80,000 on COCO
HIDDEN = 1024


def box_head(shape, num_classes, average_pool=False, width_divisor=1):
    """From regions to classes and boxes.

    Args:
        shape: of a region, SxSxC.
        num_classes: K.
        average_pool: takes the mean over SxS instead of two linear layers.
        width_divisor: divides the width of these.

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
            initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")
            x = layers.Dense(
                HIDDEN // width_divisor,
                activation="relu",
                kernel_initializer=initializer,
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


def sample(boxes, found, truth, label, keys, number):
    """Draws the regions to train on; the instances' own boxes are among the candidates.

    Args:
        boxes, found: float32 NxPx4 and bool NxP, of `rpn.proposals`.
        truth, label: as of `matching.match`.
        keys: int64 Nx2, of the draws.
        number: R, regions of an image.

    Returns:
        Dict of boxes: float32 NxRx4, the positives in the first R / 4 slots; positive: bool NxR;
        counted: bool NxR, false for empty slots; index: int32 NxR, slots of the instances.
    """
    boxes = tf.concat([boxes, truth], axis=1)
    found = tf.concat([found, label >= 0], axis=1)
    index, positive, negative = matching.match(boxes, truth, label, IOU, IOU)
    drawn, positive, counted = matching.sample(
        positive & found, negative & found, keys, number, POSITIVE_SHARE
    )
    boxes, index = (tf.gather(x, drawn, batch_dims=1) for x in (boxes, index))
    boxes = tf.where(counted[..., None], boxes, 0.0)
    return {"boxes": boxes, "positive": positive, "counted": counted, "index": index}


def losses(logits, deltas, regions, truth, label, beta=0.0):
    """The losses of the box head.

    Args:
        logits, deltas: float32 NxRx(K + 1) and NxRxKx4, of `box_head`.
        regions: dict, of `sample`.
        truth, label: as of `matching.match`.
        beta: of `rpn.l1`.

    Returns:
        The cross-entropy (nats) and the L1 distance of the deltas of the positives' own classes,
        both divided by the number of slots.
    """
    positive, index = regions["positive"], regions["index"]
    own = tf.where(positive, tf.gather(label, index, batch_dims=1), logits.shape[-1] - 1)  # NxR
    cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=own, logits=logits)
    deltas = tf.gather(deltas, tf.where(positive, own, 0), batch_dims=2)  # NxRx4
    found = tf.gather(truth, index, batch_dims=1)
    distance = rpn.l1(regions["boxes"], found, deltas, WEIGHTS, positive, beta)
    number = float(own.shape[0] * own.shape[1])
    cross_entropy = tf.where(regions["counted"], cross_entropy, 0.0)
    return tf.reduce_sum(cross_entropy) / number, distance / number


def detections(logits, deltas, boxes, found, size, number, lowest_score=LOWEST_SCORE):
    """The detections of an image.

    Args:
        logits, deltas: float32 NxPx(K + 1) and NxPxKx4, of `box_head`.
        boxes, found: float32 NxPx4 and bool NxP, of `rpn.proposals`.
        size: int32 Nx2, heights and widths of the images.
        number: D, detections to keep at most.
        lowest_score: detections need more.

    Returns:
        Dict of boxes: float32 NxDx4; score: float32 NxD; label: int32 NxD, -1 after the last.
    """
    n, _, classes, _ = deltas.shape
    score = tf.where(found[..., None], tf.nn.softmax(logits)[..., :-1], 0.0)  # NxPxK
    score = tf.reshape(tf.where(score > lowest_score, score, float("-inf")), [n, -1])
    boxes = box_ops.clip(box_ops.decode(boxes[:, :, None], deltas, WEIGHTS), size)  # NxPxKx4
    score, best = tf.math.top_k(score, min(CANDIDATES, score.shape[1]))
    boxes = tf.gather(tf.reshape(boxes, [n, -1, 4]), best, batch_dims=1)
    return suppressed(boxes, score, best % classes, number)


def suppressed(boxes, score, label, number):
    """The detections of an image, out of boxes of which many are of the same instance.

    Args:
        boxes: float32 NxPx4.
        score: float32 NxP; -inf for none.
        label: int32 NxP, classes.
        number: D, detections to keep at most.

    Returns:
        As of `detections`.
    """
    index, kept = nms(boxes, score, label, NMS_IOU, number)  # NxD
    boxes, score, label = (tf.gather(x, index, batch_dims=1) for x in (boxes, score, label))
    return {
        "boxes": tf.where(kept[..., None], boxes, 0.0),
        "score": tf.where(kept, score, 0.0),
        "label": tf.where(kept, label, -1),
    }
