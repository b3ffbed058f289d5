"""Masks and DensePose annotations of many objects, packed as bytes or run lengths (RLE)."""

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from moco_tf.detection.data import densepose, masks
from moco_tf.detection.data.objects import Objects

CHUNK = 512  # objects whose masks are made at once


def mask_crops(objects: Objects, order: np.ndarray, boxes: np.ndarray) -> tuple[bytes, ...]:
    """The mask of each object within its box, packed by `masks.pack`; empty for a crowd.

    Args:
        objects: `Objects`.
        order: int M, numbers of the objects to pack.
        boxes: float, boxes of all objects, clipped to their images.
    """
    packed = []
    starts = range(0, len(order), CHUNK)
    for start in tqdm(starts, "masks", unit_scale=CHUNK, disable=len(order) < 100 * CHUNK):
        chunk = order[start : start + CHUNK]
        crops = masks.crops_of_polygons([objects.polygons(i) for i in chunk], boxes[chunk])
        for number, crop in zip(chunk, crops, strict=True):
            if objects.crowd[number]:
                packed.append(b"")  # a crowd is never a positive
                continue
            rle = objects.rles.get(number)
            if rle:
                crop = masks.crop_of_bitmap(coco_mask.decode(rle), boxes[number])
            packed.append(masks.pack(crop))
    return tuple(packed)


def mask_rles(objects: Objects, order: np.ndarray, sizes: np.ndarray) -> tuple[dict, ...]:
    """The mask of each object in its whole image, RLE.

    Args:
        objects: `Objects`.
        order: int M, numbers of the objects to pack.
        sizes: int, heights and widths of the images of all objects.
    """
    rles = []
    for number in order:
        rle = objects.rles.get(number)
        if not rle:
            height, width = map(int, sizes[number])
            rle = masks.rle_of_polygons(objects.polygons(number), height, width)
        rles.append(rle)
    return tuple(rles)


def densepose_points(objects: Objects, order: np.ndarray) -> tuple[bytes, ...]:
    """DensePose's points of each object, packed; empty where it has none."""
    known = objects.densepose
    return tuple(densepose.pack_points(known[i][0]) if i in known else b"" for i in order)


def densepose_masks(objects: Objects, order: np.ndarray, boxes: np.ndarray) -> tuple[bytes, ...]:
    """DensePose's mask of each object within its box, packed; empty where it has none."""
    known = objects.densepose
    file_boxes = np.array(objects.box).reshape(-1, 4)
    return tuple(
        densepose.pack_masks(known[i][1], file_boxes[i], boxes[i]) if i in known else b""
        for i in tqdm(order, "DensePose's masks", disable=len(known) < CHUNK)
    )
