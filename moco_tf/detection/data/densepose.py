"""DensePose annotations: points of a person's surface, and a mask of body parts.

The surface is cut into 24 parts (patches, 1 to 24), each with coordinates U and V in [0, 1]; a
point has a part, U and V. The mask has 14 coarser labels (1 to 14; 0 is no person).

Source: arXiv:1802.00434; densepose/structures/data_relative.py of detectron2's projects/DensePose.
"""

import zlib

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

FIELDS = ("dp_masks", "dp_x", "dp_y", "dp_I", "dp_U", "dp_V")
PARTS, LABELS = 24, 14
POINTS = 196  # of a person at most
FILE_PX = 256  # sides of masks and of boxes in the files
SIDE = 112  # px of a mask here: twice the 56 of the head's maps
TOLERANCE = 1e-3  # of U and V, which are rounded
# Part and label of the mirrored body: parts 1 and 2 (the torso), labels 1 and 14 (the head) stay.
MIRRORED_PARTS = (0, 1, 2, *(p + 1 if p % 2 else p - 1 for p in range(3, PARTS + 1)))
MIRRORED_LABELS = (0, 1, *(p - 1 if p % 2 else p + 1 for p in range(2, LABELS)), LABELS)


def read(record: dict) -> tuple[np.ndarray, list]:
    """Reads the annotation of a record of COCO's JSON.

    Args:
        record: dict with bbox and all of `FIELDS`.

    Returns:
        points: float32 Px5: x, y in px, part, U, V.
        masks: run lengths of the 14 labels, None where there is none.

    Raises:
        ValueError: for an annotation in another form than DensePose-COCO's.
    """
    x, y, width, height = record["bbox"]
    columns = [np.asarray(record[name], np.float32) for name in FIELDS[1:]]
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1 or lengths[0] > POINTS:
        raise ValueError(
            f"dp_x, dp_y, dp_I, dp_U, dp_V must be of one length, at most {POINTS}, not {lengths}"
        )
    points = np.stack(columns, axis=1)
    part, uv = points[:, 2], points[:, 3:]
    is_part = (part % 1 == 0) & (part >= 1) & (part <= PARTS)
    if not (np.isfinite(points).all() and is_part.all() and _are_shares(uv)):
        raise ValueError(f"dp_I must be whole numbers, 1 to {PARTS}, dp_U and dp_V from 0 to 1")
    points[:, :2] = np.add((x, y), points[:, :2] * (np.array([width, height]) / FILE_PX))
    masks = [mask or None for mask in record["dp_masks"]]
    if len(masks) != LABELS or not all(_is_mask(mask) for mask in masks if mask):
        raise ValueError(
            f"dp_masks must be {LABELS}, run lengths (text) of {FILE_PX} x {FILE_PX} px or empty"
        )
    return points, masks


def _are_shares(values):
    return (values >= -TOLERANCE).all() and (values <= 1 + TOLERANCE).all()


def _is_mask(mask):
    return mask["size"] == [FILE_PX, FILE_PX] and isinstance(mask["counts"], (str, bytes))


def pack_points(points: np.ndarray) -> bytes:
    """Packs points as bytes, which `unpacked` and `points_of` read."""
    return points.astype("<f4").tobytes()


def points_of(packed: bytes) -> np.ndarray:
    """Unpacks the bytes of `pack_points`: float32 Px5; 0x5 if there are none."""
    return np.frombuffer(packed, "<f4").reshape(-1, 5)


def pack_masks(masks: list, file_box: np.ndarray, box: np.ndarray) -> bytes:
    """Packs the labels within a box, 112 x 112, as deflated bytes.

    Args:
        masks: run lengths of the labels, returned by `read`.
        file_box: 4 floats, the box in the file, which the masks fill.
        box: 4 floats, the box that the packed labels fill; it may have been clipped.
    """
    known = [(label, mask) for label, mask in enumerate(masks, 1) if mask]
    labels = np.zeros((FILE_PX, FILE_PX), np.uint8)
    if known:
        bitmaps = coco_mask.decode([mask for _, mask in known])  # 256x256xK
        # Where masks overlap, the last one wins, which has the highest label.
        labels = (bitmaps * np.array([label for label, _ in known], np.uint8)).max(axis=-1)
    corner = np.array(file_box[:2])
    size = np.subtract(file_box[2:], file_box[:2])
    cells = (np.arange(SIDE)[:, None] + 0.5) / SIDE
    place = (box[:2] + cells * np.subtract(box[2:], box[:2]) - corner) / size * FILE_PX
    columns, rows = np.clip(place.T.astype(int), 0, FILE_PX - 1)
    return zlib.compress(labels[np.ix_(rows, columns)].tobytes())


# Graph functions of the input pipeline -----------------------------------------------------------


def unpacked(points: tf.Tensor, masks: tf.Tensor, factor: tf.Tensor) -> dict[str, tf.Tensor]:
    """Unpacks and scales the points and masks of n persons.

    Args:
        points: string n, packed points; empty for persons that have none.
        masks: string n, packed masks; empty for persons that have none.
        factor: float32 2, factors of x and of y.

    Returns:
        Dict of densepose_points: float32 n x 196 x 5: x, y in px, part, U, V, zeros after the last
        point; and densepose_masks: uint8 n x 112 x 112.
    """
    points = tf.io.decode_raw(points, tf.float32, fixed_length=POINTS * 5 * 4)
    points = tf.reshape(points, [-1, POINTS, 5]) * tf.concat([factor, [1.0, 1.0, 1.0]], axis=0)
    raw = tf.io.decode_compressed(masks, "ZLIB")  # an empty string stays empty
    masks = tf.io.decode_raw(raw, tf.uint8, fixed_length=SIDE * SIDE)
    return {"densepose_points": points, "densepose_masks": tf.reshape(masks, [-1, SIDE, SIDE])}


def mirrored(
    points: tf.Tensor, masks: tf.Tensor, width: tf.Tensor, symmetry: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Points and masks in the mirrored image: left parts become right ones, with their U and V.

    Args:
        points: float32 n x 196 x 5, returned by `unpacked`.
        masks: uint8 n x 112 x 112, returned by `unpacked`.
        width: width of the image, px.
        symmetry: float32 24x256x256x2: of each part, and of 255 V and 255 U within it, the U and V
            of the mirrored point.

    Returns:
        The same dict as `unpacked`.
    """
    x, y, part, u, v = tf.unstack(points, axis=-1)
    part = tf.cast(part, tf.int32)
    row, column = (tf.clip_by_value(tf.cast(w * 255, tf.int32), 0, 255) for w in (v, u))
    uv = tf.gather_nd(symmetry, tf.stack([tf.maximum(part - 1, 0), row, column], axis=-1))
    twin = tf.cast(tf.gather(MIRRORED_PARTS, part), tf.float32)
    points = tf.stack([width - x, y, twin, uv[..., 0], uv[..., 1]], axis=-1)
    labels = tf.gather(tf.constant(MIRRORED_LABELS, tf.uint8), tf.cast(masks, tf.int32))
    return {
        "densepose_points": tf.where(part[..., None] > 0, points, 0.0),
        "densepose_masks": tf.reverse(labels, [2]),
    }
