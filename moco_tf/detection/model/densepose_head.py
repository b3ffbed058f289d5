"""DensePose's head: where a region shows which point of a person's surface.

Its network is that of keypoint_head.py, with `MAPS` maps: 15 of the coarse mask, then 25 of the
part, of U and of V; the first of each is what is no person.

Source: arXiv:1802.00434, section 3; detectron2's projects/DensePose, densepose/modeling/losses, and
the numbers of its densepose_rcnn_R_50_FPN_s1x_legacy.yaml, which are those of Detectron's
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
IOU = 0.7  # of a region with its person, more than it
IMAGES = 2  # on each GPU there, over whose points the losses of U and V are sums


def losses(maps, points, masks, truth, boxes, positive):
    """The losses, by `NAMES`, weighted.

    The cross-entropies (nats) are means: over the cells of all replicas' regions, and over the
    points in them. The smooth L1 distances of U and V are sums over the points, of two images:
    detectron2 takes the sum over a GPU's, which are two in its recipe. It compares a point with
    the corners of cells in training and with their centres in testing; here it is always centres.

    Args:
        maps: float32 NxBxSxSx90.
        points: float32 NxBxPx5, of the person of each region; see `densepose.unpacked`.
        masks: uint8 NxBxTxT, likewise.
        truth: float32 NxBx4, boxes of these persons.
        boxes: float32 NxBx4, of the regions.
        positive: bool NxB.

    Returns:
        Dict of scalars.
    """
    part = tf.cast(points[..., 2], tf.int32)  # NxBxP
    overlap = box_ops.iou(boxes, truth)  # NxB
    counted = positive & tf.reduce_any(part > 0, axis=-1) & (overlap > IOU)
    label = mask_targets(masks, truth, boxes, maps.shape[2])
    own = tf.nn.sparse_softmax_cross_entropy_with_logits(label, maps[..., : SIZES[0]])
    mask = _mean(tf.reduce_mean(own, axis=[2, 3]), counted)

    found, inside = at_points(maps[..., SIZES[0] :], points, boxes)
    logits, u, v = tf.split(found, SIZES[1:], axis=-1)  # NxBxPx25
    counted = counted[..., None] & inside & (part > 0)
    index = _mean(tf.nn.sparse_softmax_cross_entropy_with_logits(part, logits), counted)
    distances = [
        rpn.smooth_l1(tf.abs(tf.gather(x, part, batch_dims=3) - points[..., i]))
        for x, i in ((u, 3), (v, 4))
    ]
    scale = IMAGES / maps.shape[0]
    sums = [scale * tf.reduce_sum(tf.where(counted, distance, 0.0)) for distance in distances]
    return {name: w * loss for name, w, loss in zip(NAMES, WEIGHTS, (mask, index, *sums))}


def _mean(losses, counted):
    """Over what counts on all replicas: each replica's share of it, times their number."""
    number = distribute.mean(tf.reduce_sum(tf.cast(counted, tf.float32)))
    return tf.reduce_sum(tf.where(counted, losses, 0.0)) / tf.maximum(number, 1.0)


def mask_targets(masks, truth, boxes, size):
    """The label at the centre of each cell of a region.

    Args:
        masks, truth, boxes: as of `losses`.
        size: S.

    Returns:
        int32 NxBxSxS; 0 outside the person's box.
    """
    side = masks.shape[2]
    cells = (tf.range(size, dtype=tf.float32)[:, None] + 0.5) / size  # Sx1
    place = boxes[..., None, :2] + cells * (boxes[..., 2:] - boxes[..., :2])[..., None, :]
    scale = tf.maximum(truth[..., 2:] - truth[..., :2], 1e-3)  # an empty slot has no side
    place = (place - truth[..., None, :2]) / scale[..., None, :] * side  # NxBxSx2
    inside = (place >= 0) & (place < side)
    column, row = tf.unstack(tf.cast(tf.where(inside, place, 0.0), tf.int32), axis=-1)
    found = tf.gather(tf.gather(masks, row, batch_dims=2), column, axis=3, batch_dims=2)
    both = inside[..., 1][..., None] & inside[..., 0][..., None, :]  # NxBxSxS
    return tf.where(both, tf.cast(found, tf.int32), 0)


def at_points(maps, points, boxes):
    """Maps where points are, bilinear between the centres of cells.

    Args:
        maps: float32 NxBxSxSxC.
        points: float32 NxBxPxM, M >= 2: x, y in px first.
        boxes: float32 NxBx4.

    Returns:
        float32 NxBxPxC; and bool NxBxP, whether the point is in the box.
    """
    n, b, size, _, c = maps.shape
    corner, far = boxes[..., None, :2], boxes[..., None, 2:]
    place = tf.math.divide_no_nan((points[..., :2] - corner) * size, far - corner)  # NxBxPx2
    inside = tf.reduce_all((place >= 0) & (place < size), axis=-1)
    place = tf.clip_by_value(place - 0.5, 0.0, size - 1.0)
    low = tf.floor(place)
    flat, found = tf.reshape(maps, [n, b, size * size, c]), 0.0
    for step in itertools.product((0.0, 1.0), (0.0, 1.0)):
        cell = low + step
        weight = tf.reduce_prod(1 - tf.abs(place - cell), axis=-1, keepdims=True)
        x, y = tf.unstack(tf.cast(tf.minimum(cell, size - 1.0), tf.int32), axis=-1)
        found += weight * tf.gather(flat, y * size + x, batch_dims=2)
    return found, inside


def decode(maps):
    """The surface that each cell of a box shows.

    detectron2 resizes the maps to the box before it chooses a part; here it is chosen in the cells.

    Args:
        maps: float32 NxDxSxSx90.

    Returns:
        float32 NxDxSxSx3: the part, 0 where the mask says that it is no person; U and V in [0, 1].
    """
    mask, logits, u, v = tf.split(maps, SIZES, axis=-1)
    part = tf.argmax(logits, axis=-1, output_type=tf.int32)
    part = tf.where(tf.argmax(mask, axis=-1) > 0, part, 0)  # NxDxSxS
    chosen = tf.one_hot(part, PARTS + 1)
    u, v = (tf.clip_by_value(tf.reduce_sum(x * chosen, axis=-1), 0.0, 1.0) for x in (u, v))
    found = tf.stack([tf.cast(part, tf.float32), u, v], axis=-1)
    return tf.where(part[..., None] > 0, found, 0.0)
