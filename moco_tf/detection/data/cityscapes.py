"""Reader of Cityscapes' polygons: the instances of its eight classes of things."""

import json
import os

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from moco_tf.data.class_names import CITYSCAPES
from moco_tf.detection.data import masks as instance_masks
from moco_tf.detection.data.objects import Objects, RawAnnotations

ADDRESSES = ("cityscapes:DIR:SPLIT",)
# Names of things by their label ids; those below 24 are stuff.
THINGS = {number: name for number, name in CITYSCAPES.items() if number >= 24}
IMAGE = "_leftImg8bit.png"  # end of an image's name
NOT_DRAWN = ("license plate",)  # label id -1


def read(
    address: str, rest: str, *, masks: bool, keypoints: bool, densepose: bool
) -> RawAnnotations:
    """Reads gtFine's *_polygons.json of a split.

    Polygons hide what was drawn before them. The mask and the box of an instance are those of its
    visible part. A label such as `cargroup` is a crowd of cars.

    Source: detectron2/data/datasets/cityscapes.py, which widens polygons by half a pixel as
    Cityscapes' scripts do. This reader draws them as COCO's tools do.

    Args:
        address: the whole address, for messages.
        rest: text after the first colon of the address.
        masks: whether to keep the masks.
        keypoints: must be false.
        densepose: must be false.

    Raises:
        ValueError: for missing or broken files.
    """
    root, colon, split = rest.rpartition(":")
    pattern = os.path.join(os.path.expanduser(root), "leftImg8bit", split, "*", f"*{IMAGE}")
    images = sorted(tf.io.gfile.glob(pattern)) if colon else []
    if not images or keypoints or densepose:
        raise ValueError(
            "The address must be cityscapes:DIR:SPLIT, such that leftImg8bit/SPLIT has images; it "
            f"has no keypoints and no DensePose. Received: {address!r}, {len(images)} images."
        )
    objects, sizes = Objects(), []
    for number, image in enumerate(images):
        sizes.append(_read(annotation_path(image, "polygons.json"), number, objects, masks))
    ids = [os.path.basename(image).removesuffix(IMAGE) for image in images]
    return RawAnnotations(images, ids, sizes, tuple(THINGS.values()), list(THINGS), objects)


def annotation_path(image: str, suffix: str) -> str:
    """The path of an image's file in gtFine.

    Args:
        image: path, DIR/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png.
        suffix: end of the file's name after _gtFine_, such as "polygons.json".
    """
    folder, name = os.path.split(image)
    folder, city = os.path.split(folder)
    folder, split = os.path.split(folder)
    name = f"{name.removesuffix(IMAGE)}_gtFine_{suffix}"
    return os.path.join(os.path.dirname(folder), "gtFine", split, city, name)


def _read(path, number, objects, masks):
    """Adds the instances of an image; returns its height and width."""
    try:
        with tf.io.gfile.GFile(path) as file:
            content = json.load(file)
        height, width = content["imgHeight"], content["imgWidth"]
        drawn = [
            (o["label"], np.array(o["polygon"], float) + 0.5)
            for o in content["objects"]
            if not o.get("deleted") and o["label"] not in NOT_DRAWN and len(o["polygon"]) > 2
        ]
        canvas = np.zeros((height, width), np.int32)
        for order, (_, polygon) in enumerate(drawn, 1):
            _draw(canvas, polygon, order)
    except (tf.errors.NotFoundError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "Every image must have Cityscapes' polygons, with imgHeight, imgWidth and objects "
            f"(label, polygon). Received: {path!r}, {type(error).__name__}: {error}. Download "
            "gtFine again."
        ) from error
    classes = list(THINGS.values())
    for order, (label, polygon) in enumerate(drawn, 1):
        name = label.removesuffix("group")
        left, top, right, bottom = _bounds(polygon, height, width)
        visible = canvas[top:bottom, left:right] == order
        if name not in classes or not visible.any():
            continue
        ys = np.flatnonzero(visible.any(axis=1))
        xs = np.flatnonzero(visible.any(axis=0))
        box = (left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1)
        if masks:
            objects.add_rle(instance_masks.rle_of_window(visible, left, top, height, width))
        objects.add(
            image=number,
            label=classes.index(name),
            box=box,
            area=visible.sum(),
            crowd=label.endswith("group"),
        )
    return height, width


def _draw(canvas, polygon, number):
    """Sets the pixels within a polygon to a number."""
    left, top, right, bottom = _bounds(polygon, *canvas.shape)
    if right > left and bottom > top:
        points = (polygon - [left, top]).ravel()
        mask = coco_mask.decode(coco_mask.frPyObjects([points], bottom - top, right - left))
        canvas[top:bottom, left:right][mask[:, :, 0] > 0] = number


def _bounds(polygon, height, width):
    """The pixels around a polygon, within the image: left, top, right, bottom."""
    low = np.maximum(np.floor(polygon.min(axis=0)), 0)
    high = np.minimum(np.ceil(polygon.max(axis=0)), [width, height])
    high = np.maximum(high, low)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
