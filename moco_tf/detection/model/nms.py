"""Non-maximum suppression (NMS) within groups: levels of a pyramid, or classes of a detector."""

from collections.abc import Callable

import tensorflow as tf

from moco_tf.detection.model import boxes as box_ops


def nms(
    boxes: tf.Tensor, score: tf.Tensor, group: tf.Tensor, threshold: float, max_boxes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Keeps the boxes with the highest scores, and drops those that overlap a kept one too much.

    Only boxes of the same group suppress each other. Groups are moved apart in float32, which
    rounds coordinates: by up to .00025 px for 5 levels of 1333 px, too much for many classes.

    Args:
        boxes: float32 NxAx4.
        score: float32 NxA; a box with a score of -inf is never kept.
        group: int32 NxA, from 0: a level.
        threshold: IoU above which the box with the lower score is dropped.
        max_boxes: B, boxes to keep in each image at most.

    Returns:
        index: int32 NxB, by falling score; 0 after the last.
        is_kept: bool NxB, false after the last.

    Source: torchvision.ops.batched_nms: each group is moved to a place of its own.
    """
    span = tf.reduce_max(boxes, axis=[1, 2], keepdims=True) + 1  # Nx1x1
    boxes += tf.cast(group[..., None], tf.float32) * span
    indices, counts = [], []
    for boxes_of_image, score_of_image in zip(tf.unstack(boxes), tf.unstack(score), strict=True):
        # `tf.image.non_max_suppression_padded` makes NaN of a score of -inf; this op does not.
        index, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=boxes_of_image,
            scores=score_of_image,
            max_output_size=max_boxes,
            iou_threshold=threshold,
            score_threshold=boxes.dtype.min,
            pad_to_max_output_size=True,
        )
        indices.append(index)
        counts.append(count)
    index = tf.ensure_shape(tf.stack(indices), [len(indices), max_boxes])  # NxB
    return index, tf.range(max_boxes) < tf.stack(counts)[:, None]


def nms_of_classes(
    score: tf.Tensor,
    boxes_of: Callable[[tf.Tensor], tf.Tensor],
    threshold: float,
    max_boxes: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Keeps the boxes with the highest scores of all classes, as `nms` does within each class.

    Every box of every class is a candidate, and none is moved. Each round keeps the best box of an
    image and compares it with those of its class. The memory is that of two or three copies of
    `score`: 12 MB for an image with LVIS' 1,230 classes and 1,000 boxes (98 MB for 8 on a CPU).

    Args:
        score: float32 NxKxP of K classes; a box with a score of -inf is never kept.
        boxes_of: function from a class for each image, int32 N, to its boxes, float32 NxPx4.
        threshold: IoU above which the box with the lower score is dropped.
        max_boxes: B, boxes to keep in each image at most.

    Returns:
        index: int32 NxB, from 0 to P, by falling score.
        label: int32 NxB, class.
        kept: float32 NxB, score; -inf after the last box.

    Source: detectron2/modeling/roi_heads/fast_rcnn.py, fast_rcnn_inference_single_image.
    """
    images, boxes = tf.range(tf.shape(score)[0]), tf.range(tf.shape(score)[2])
    rounds = tf.range(max_boxes)
    shape = [score.shape[0], max_boxes]

    def keep_best(i, score, highest, index, label, kept):
        best_class = tf.argmax(highest, axis=1, output_type=tf.int32)  # N
        class_scores = tf.gather(score, best_class, batch_dims=1)  # NxP
        best = tf.argmax(class_scores, axis=1, output_type=tf.int32)  # N
        candidates = boxes_of(best_class)  # NxPx4
        box = tf.gather(candidates, best, batch_dims=1)[:, None]  # Nx1x4
        is_done = (box_ops.iou(candidates, box) > threshold) | (boxes == best[:, None])  # NxP
        rest = tf.where(is_done, float("-inf"), class_scores)
        place = tf.stack([images, best_class], axis=1)  # Nx2
        is_now = rounds == i
        return (
            i + 1,
            tf.tensor_scatter_nd_update(score, place, rest),
            tf.tensor_scatter_nd_update(highest, place, tf.reduce_max(rest, axis=1)),
            tf.where(is_now, best[:, None], index),
            tf.where(is_now, best_class[:, None], label),
            tf.where(is_now, tf.reduce_max(class_scores, axis=1)[:, None], kept),
        )

    highest = tf.reduce_max(score, axis=2)  # NxK
    zeros = tf.zeros(shape, tf.int32)
    *_, index, label, kept = tf.while_loop(
        lambda i, score, highest, *_: (i < max_boxes) & tf.reduce_any(highest > float("-inf")),
        keep_best,
        (0, score, highest, zeros, zeros, tf.fill(shape, float("-inf"))),
    )
    return index, label, kept
