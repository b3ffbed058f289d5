"""Instance masks: polygons and run lengths (RLE) to crops of 112 px, and predicted crops to RLE.

RLE is COCO's run-length encoding of a whole image: a dict of `size` [height, width] and `counts`,
bytes. Coordinates are continuous: pixel i covers [i, i + 1).
"""

import zlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

SIDE = 112  # px of a crop: four times the 28 of the mask head's target


def crops_of_polygons(objects: Sequence[Sequence[np.ndarray]], boxes: np.ndarray) -> np.ndarray:
    """Rasterizes the polygons of objects within their boxes, stretched to 112 x 112.

    Source: detectron2/structures/masks.py, rasterize_polygons_within_box.

    Args:
        objects: n lists of polygons, float arrays x, y, x, y, ... px; an object is their union.
        boxes: float nx4: x1, y1, x2, y2, the box of each object.

    Returns:
        uint8 n x 112 x 112, 0 or 1.
    """
    scale = SIDE / np.maximum(boxes[:, 2:] - boxes[:, :2], 0.1)
    scaled = [
        ((polygon.reshape(-1, 2) - box[:2]) * factor).ravel()
        for polygons, box, factor in zip(objects, boxes, scale, strict=True)
        for polygon in polygons
    ]
    crops = np.zeros((len(objects), SIDE, SIDE), np.uint8)
    if scaled:
        rasters = coco_mask.decode(coco_mask.frPyObjects(scaled, SIDE, SIDE)).T  # P x W x H
        counts = np.array([len(polygons) for polygons in objects])
        first = (np.cumsum(counts) - counts)[counts > 0]
        crops[counts > 0] = np.maximum.reduceat(rasters, first).transpose(0, 2, 1)
    return crops


def crop_of_bitmap(bitmap: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """Stretches the part of a mask within a box to 112 x 112: true where half is covered.

    Args:
        bitmap: HxW, 0 or 1.
        box: 4 floats: x1, y1, x2, y2, px.

    Returns:
        bool 112x112.
    """
    x1, y1, x2, y2 = (float(x) for x in box)
    left, top = max(int(x1), 0), max(int(y1), 0)
    part = bitmap[top : int(np.ceil(y2)), left : int(np.ceil(x2))].astype(np.float32)
    rows = _overlaps(y1 - top, y2 - top, part.shape[0])
    columns = _overlaps(x1 - left, x2 - left, part.shape[1])
    return rows @ part @ columns.T >= 0.5


def _overlaps(start, stop, pixels):
    """Shares of `SIDE` equal cells of [start, stop) that lie in each pixel: SIDE x pixels."""
    edges = np.linspace(start, stop, SIDE + 1)[:, None]
    pixel = np.arange(pixels)
    shared = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return (np.maximum(shared, 0) * SIDE / (stop - start)).astype(np.float32)


def pack(crop: np.ndarray) -> bytes:
    """Packs a crop as deflated bits: about 250 bytes instead of 1568."""
    return zlib.compress(np.packbits(crop).tobytes())


def unpack(packed: bytes) -> np.ndarray:
    """Unpacks the bytes of `pack`: uint8 112x112."""
    return np.unpackbits(np.frombuffer(zlib.decompress(packed), np.uint8)).reshape(SIDE, SIDE)


def unpack_in_graph(packed: tf.Tensor) -> tf.Tensor:
    """Unpacks the bytes of `pack`, string n, to uint8 n x 112 x 112; 0 for empty strings."""
    raw = tf.io.decode_compressed(packed, "ZLIB")  # an empty string stays empty
    packed_bits = tf.io.decode_raw(raw, tf.uint8, fixed_length=SIDE * SIDE // 8)
    bits = tf.bitwise.right_shift(
        packed_bits[..., None], tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
    )
    return tf.reshape(tf.bitwise.bitwise_and(bits, 1), [-1, SIDE, SIDE])


def rle_of_polygons(polygons: Sequence[np.ndarray], height: int, width: int) -> dict:
    """RLE of the union of polygons, as COCO's own tools make it."""
    if not polygons:
        return rle_of_window(np.zeros((0, 0), bool), 0, 0, height, width)
    return coco_mask.merge(coco_mask.frPyObjects(list(polygons), height, width))


def rle_of_window(window: np.ndarray, left: int, top: int, height: int, width: int) -> dict:
    """RLE of a mask that is zero outside a window, in time proportional to the window.

    Args:
        window: bool hxw.
        left: first column of the window, px.
        top: first row of the window, px.
        height: height of the image.
        width: width of the image.
    """
    h, w = window.shape
    columns = np.zeros((w, height), np.int8)  # run lengths go down the columns
    columns[:, top : top + h] = window.T
    changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0)) + left * height
    counts = np.diff(changes[changes < height * width], prepend=0, append=height * width)
    rle = {"size": [int(height), int(width)], "counts": counts.tolist()}
    return coco_mask.frPyObjects(rle, int(height), int(width))


def paste(probabilities: np.ndarray, box: Sequence[float], height: int, width: int) -> np.ndarray:
    """Pastes a predicted mask into its image.

    Source: detectron2/layers/mask_ops.py, paste_masks_in_image: bilinear at the centers of pixels,
    zero beyond the mask, at least 0.5.

    Args:
        probabilities: float SxS, of equal cells of the box.
        box: 4 floats: x1, y1, x2, y2, px.
        height: height of the image.
        width: width of the image.

    Returns:
        bool height x width.
    """
    image = np.zeros((height, width), bool)
    window, left, top = _window(probabilities, box, height, width)
    image[top : top + window.shape[0], left : left + window.shape[1]] = window
    return image


def pasted_rle(probabilities: np.ndarray, box: Sequence[float], height: int, width: int) -> dict:
    """RLE of the mask that `paste` returns, made without the image."""
    window, left, top = _window(probabilities, box, height, width)
    return rle_of_window(window, left, top, height, width)


def _window(probabilities, box, height, width):
    """The pixels that a pasted mask can reach: bool hxw, and the left and top of them."""
    x1, y1, x2, y2 = (float(x) for x in box)
    columns, left = _samples(x1, x2, probabilities.shape[1], width)
    rows, top = _samples(y1, y2, probabilities.shape[0], height)
    return rows @ probabilities @ columns.T >= 0.5, left, top


def _samples(start, stop, cells, pixels):
    """Bilinear weights of cells at the centers of pixels: n x cells, and the first pixel."""
    first = min(max(int(np.floor(start)) - 1, 0), pixels)
    last = min(max(int(np.ceil(stop)) + 1, first), pixels)
    centers = np.arange(first, last) + 0.5
    position = (centers - start) / max(stop - start, 1e-6) * cells - 0.5
    return np.maximum(1 - np.abs(position[:, None] - np.arange(cells)), 0), first
