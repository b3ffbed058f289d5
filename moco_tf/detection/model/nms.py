"""Non-maximum suppression (NMS) within groups: classes of a detector, or levels of a pyramid."""

import tensorflow as tf


def nms(
    boxes: tf.Tensor, score: tf.Tensor, group: tf.Tensor, threshold: float, max_boxes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Keeps the boxes with the highest scores, and drops those that overlap a kept one too much.

    Only boxes of the same group suppress each other.

    Args:
        boxes: float32 NxAx4.
        score: float32 NxA; a box with a score of -inf is never kept.
        group: int32 NxA, from 0: a class or a level.
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
