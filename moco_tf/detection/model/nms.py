"""Non-maximum suppression."""

import tensorflow as tf


def nms(boxes, score, group, threshold, number):
    """Keeps the boxes of highest score that overlap no better one of their group too much.

    Args:
        boxes: float32 NxAx4.
        score: float32 NxA; boxes of score -inf are never kept.
        group: int32 NxA, from 0: classes or levels.
        threshold: IoU above which the lower score is dropped.
        number: boxes to keep of each image at most, B.

    Returns:
        index: int32 NxB, by falling score; 0 after the last.
        kept: bool NxB.

    Source: torchvision.ops.batched_nms: each group is moved to a place of its own.
    """
    span = tf.reduce_max(boxes, axis=[1, 2], keepdims=True) + 1  # Nx1x1
    boxes += tf.cast(group[..., None], tf.float32) * span
    # The op itself: `tf.image.non_max_suppression_padded` makes NaN of a score of -inf.
    kept = [
        tf.raw_ops.NonMaxSuppressionV4(
            boxes=b,
            scores=s,
            max_output_size=number,
            iou_threshold=threshold,
            score_threshold=boxes.dtype.min,
            pad_to_max_output_size=True,
        )
        for b, s in zip(tf.unstack(boxes), tf.unstack(score))
    ]
    index, count = (tf.stack(x) for x in zip(*kept))  # NxB, N
    return tf.ensure_shape(index, [len(kept), number]), tf.range(number) < count[:, None]
