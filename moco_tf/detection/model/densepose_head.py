"""The DensePose head: which point of a person's surface each cell of a region shows.

Its network is that of keypoint_head.py, with `MAPS` maps: 15 of the coarse mask, then 25 each of
the part, of U and of V. The first map of each group means that there is no person.

Source: arXiv:1802.00434, section 3; detectron2's projects/DensePose, densepose/modeling/losses. The
numbers are those of its densepose_rcnn_R_50_FPN_s1x_legacy.yaml, equal to those of Detectron's
DensePose_ResNet50_FPN_s1x-e2e.yaml.
"""

import itertools

import tensorflow as tf

from moco_tf import distribute
from moco_tf.detection.data.densepose import LABELS, PARTS
from moco_tf.detection.model import boxes as box_ops
from moco_tf.detection.model import rpn

SIZES = (LABELS + 1, PARTS + 1, PARTS + 1, PARTS + 1)  # maps of the mask, of parts, of U, of V
MAPS = sum(SIZES)
NAMES = ("densepose_mask", "densepose_part", "densepose_u", "densepose_v")
WEIGHTS = (2.0, 0.3, 0.1, 0.1)
IOU = 0.7  # a region counts if its IoU with its person is higher
IMAGES = 2  # on each GPU in detectron2, over whose points the losses of U and V are sums


def losses(
    maps: tf.Tensor,
    points: tf.Tensor,
    masks: tf.Tensor,
    truth: tf.Tensor,
    boxes: tf.Tensor,
    positive: tf.Tensor,
) -> dict[str, tf.Tensor]:
    """The weighted losses, by `NAMES`.

    The cross-entropies (nats) are means: over the cells of all replicas' regions, and over the
    points in them. The smooth L1 distances of U and V are sums over the points of two images:
    detectron2 takes the sum over one GPU, which has two images in its recipe. detectron2 compares a
    point with the corners of cells in training and with their centers in testing; this head always
    uses centers.

    Args:
        maps: float32 NxBxSxSx90.
        points: float32 NxBxPx5, points of each region's person, see `densepose.unpacked`.
        masks: uint8 NxBxTxT, mask of each region's person, see `densepose.unpacked`.
        truth: float32 NxBx4, the persons' boxes.
        boxes: float32 NxBx4, the regions' boxes.
        positive: bool NxB, the regions that may count.
    """
    part = tf.cast(points[..., 2], tf.int32)  # NxBxP
    overlap = box_ops.iou(boxes, truth)  # NxB
    is_counted = positive & tf.reduce_any(part > 0, axis=-1) & (overlap > IOU)
    label = mask_targets(masks, truth, boxes, maps.shape[2])
    mask_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(label, maps[..., : SIZES[0]])
    mask_loss = _mean(tf.reduce_mean(mask_loss, axis=[2, 3]), is_counted)

    values, is_inside = at_points(maps[..., SIZES[0] :], points, boxes)
    logits, u, v = tf.split(values, SIZES[1:], axis=-1)  # NxBxPx25
    is_counted = is_counted[..., None] & is_inside & (part > 0)
    part_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(part, logits)
    part_loss = _mean(part_loss, is_counted)
    u_distance = rpn.smooth_l1(tf.abs(tf.gather(u, part, batch_dims=3) - points[..., 3]))
    v_distance = rpn.smooth_l1(tf.abs(tf.gather(v, part, batch_dims=3) - points[..., 4]))
    scale = IMAGES / maps.shape[0]
    u_loss = scale * tf.reduce_sum(tf.where(is_counted, u_distance, 0.0))
    v_loss = scale * tf.reduce_sum(tf.where(is_counted, v_distance, 0.0))
    unweighted = (mask_loss, part_loss, u_loss, v_loss)
    return {
        name: weight * loss for name, weight, loss in zip(NAMES, WEIGHTS, unweighted, strict=True)
    }


def _mean(losses, is_counted):
    """Mean over what counts on all replicas: each replica's share of it, times their number."""
    number = distribute.mean(tf.reduce_sum(tf.cast(is_counted, tf.float32)))
    return tf.reduce_sum(tf.where(is_counted, losses, 0.0)) / tf.maximum(number, 1.0)


def mask_targets(masks: tf.Tensor, truth: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """The mask's label at the center of each cell of a region.

    Args:
        masks: uint8 NxBxTxT, the mask of each region's person.
        truth: float32 NxBx4, the persons' boxes.
        boxes: float32 NxBx4, the regions' boxes.
        size: S, cells along a side of a region.

    Returns:
        int32 NxBxSxS; 0 outside the person's box.
    """
    side = masks.shape[2]
    cells = (tf.range(size, dtype=tf.float32)[:, None] + 0.5) / size  # Sx1
    place = boxes[..., None, :2] + cells * (boxes[..., 2:] - boxes[..., :2])[..., None, :]
    scale = tf.maximum(truth[..., 2:] - truth[..., :2], 1e-3)  # an empty row has no side
    place = (place - truth[..., None, :2]) / scale[..., None, :] * side  # NxBxSx2
    is_inside = (place >= 0) & (place < side)
    column, row = tf.unstack(tf.cast(tf.where(is_inside, place, 0.0), tf.int32), axis=-1)
    labels = tf.gather(tf.gather(masks, row, batch_dims=2), column, axis=3, batch_dims=2)
    is_inside = is_inside[..., 1][..., None] & is_inside[..., 0][..., None, :]  # NxBxSxS
    return tf.where(is_inside, tf.cast(labels, tf.int32), 0)


def at_points(maps: tf.Tensor, points: tf.Tensor, boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Maps at points, bilinear between the centers of cells.

    Args:
        maps: float32 NxBxSxSxC.
        points: float32 NxBxPxM, M >= 2: x, y in px first.
        boxes: float32 NxBx4, the boxes that the maps fill.

    Returns:
        values: float32 NxBxPxC.
        inside: bool NxBxP, whether the point is in the box.
    """
    n, b, size, _, c = maps.shape
    near_corner = boxes[..., None, :2]  # NxBx1x2
    far_corner = boxes[..., None, 2:]
    place = (points[..., :2] - near_corner) * size
    place = tf.math.divide_no_nan(place, far_corner - near_corner)  # NxBxPx2
    is_inside = tf.reduce_all((place >= 0) & (place < size), axis=-1)
    place = tf.clip_by_value(place - 0.5, 0.0, size - 1.0)
    low = tf.floor(place)
    flat, values = tf.reshape(maps, [n, b, size * size, c]), 0.0
    for step in itertools.product((0.0, 1.0), (0.0, 1.0)):
        cell = low + step
        weight = tf.reduce_prod(1 - tf.abs(place - cell), axis=-1, keepdims=True)
        x, y = tf.unstack(tf.cast(tf.minimum(cell, size - 1.0), tf.int32), axis=-1)
        values += weight * tf.gather(flat, y * size + x, batch_dims=2)
    return values, is_inside


def decode(maps: tf.Tensor) -> tf.Tensor:
    """The surface that each cell of a box shows.

    detectron2 resizes the maps to the box before it chooses a part; this function chooses it in the
    cells.

    Args:
        maps: float32 NxDxSxSx90.

    Returns:
        float32 NxDxSxSx3: the part, 0 where the mask says that there is no person; U and V in
        [0, 1].
    """
    mask, logits, u, v = tf.split(maps, SIZES, axis=-1)
    part = tf.argmax(logits, axis=-1, output_type=tf.int32)
    part = tf.where(tf.argmax(mask, axis=-1) > 0, part, 0)  # NxDxSxS
    chosen = tf.one_hot(part, PARTS + 1)
    u = tf.clip_by_value(tf.reduce_sum(u * chosen, axis=-1), 0.0, 1.0)
    v = tf.clip_by_value(tf.reduce_sum(v * chosen, axis=-1), 0.0, 1.0)
    surface = tf.stack([tf.cast(part, tf.float32), u, v], axis=-1)
    return tf.where(part[..., None] > 0, surface, 0.0)
