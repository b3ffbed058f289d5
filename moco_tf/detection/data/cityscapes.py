"""Instances of Cityscapes' eight classes of things, from its polygons."""

import json
import os

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from moco_tf.detection.data import masks as instance_masks
from moco_tf.detection.data.objects import Found, Objects

ADDRESSES = ("cityscapes:DIR:SPLIT",)
# Of the label ids, those of things.
THINGS = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
IMAGE = "_leftImg8bit.png"  # how the names of images end
NOT_DRAWN = ("license plate",)  # label id -1


def read(address, rest, *, masks, keypoints, densepose):
    """Reads gtFine's *_polygons.json of a split.

    Polygons hide what was drawn before them; an instance is what remains to be seen, and its box
    that of it. A label such as `cargroup` is a crowd of cars.

    Source: detectron2/data/datasets/cityscapes.py, which widens polygons by half a pixel as
    Cityscapes' scripts do. Here they are drawn as COCO's tools do.

    Args:
        address: for messages.
        rest: what follows its first colon.
        masks: whether to keep the masks.
        keypoints, densepose: must be false.

    Returns:
        `Found`.

    Raises:
        ValueError: for missing or broken files.
    """
    root, colon, split = rest.rpartition(":")
    pattern = os.path.join(os.path.expanduser(root), "leftImg8bit", split, "*", f"*{IMAGE}")
    images = sorted(tf.io.gfile.glob(pattern)) if colon else []
    if not images or keypoints or densepose:
        raise ValueError(
            "The address must be cityscapes:DIR:SPLIT, of which leftImg8bit/SPLIT has images; it "
            f"has no keypoints and no DensePose. Received: {address!r}, {len(images)} images."
        )
    objects, sizes = Objects(), []
    for number, image in enumerate(images):
        sizes.append(_read(annotation_path(image, "polygons.json"), number, objects, masks))
    ids = [os.path.basename(image).removesuffix(IMAGE) for image in images]
    return Found(images, ids, sizes, tuple(THINGS.values()), list(THINGS), objects)


def annotation_path(image, kind):
    """The file of gtFine that an image has.

    Args:
        image: path, DIR/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png.
        kind: what follows _gtFine_ in its name.
    """
    folder, name = os.path.split(image)
    folder, city = os.path.split(folder)
    folder, split = os.path.split(folder)
    name = f"{name.removesuffix(IMAGE)}_gtFine_{kind}"
    return os.path.join(os.path.dirname(folder), "gtFine", split, city, name)


def _read(path, number, objects, masks):
    """Adds the instances of an image; returns its height and width."""
    try:
        with tf.io.gfile.GFile(path) as file:
            content = json.load(file)
        size = height, width = content["imgHeight"], content["imgWidth"]
        drawn = [
            (o["label"], np.array(o["polygon"], float) + 0.5)
            for o in content["objects"]
            if not o.get("deleted") and o["label"] not in NOT_DRAWN and len(o["polygon"]) > 2
        ]
        shown = np.zeros((height, width), np.int32)
        for order, (_, polygon) in enumerate(drawn, 1):
            _draw(shown, polygon, order)
    except (tf.errors.NotFoundError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "Every image must have Cityscapes' polygons, with imgHeight, imgWidth and objects "
            f"(label, polygon). Received: {path!r}, {type(error).__name__}: {error}. Download "
            "gtFine again."
        ) from error
    classes = list(THINGS.values())
    for order, (label, polygon) in enumerate(drawn, 1):
        crowd, name = label.endswith("group"), label.removesuffix("group")
        left, top, right, bottom = _bounds(polygon, height, width)
        visible = shown[top:bottom, left:right] == order
        if name not in classes or not visible.any():
            continue
        ys, xs = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
        box = (left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1)
        if masks:
            objects.add_rle(instance_masks.rle_of_window(visible, left, top, height, width))
        objects.add(number, classes.index(name), box, area=visible.sum(), crowd=crowd)
    return size


def _draw(shown, polygon, order):
    """Sets the pixels within a polygon to a number."""
    left, top, right, bottom = _bounds(polygon, *shown.shape)
    if right > left and bottom > top:
        points = (polygon - [left, top]).ravel()
        inside = coco_mask.decode(coco_mask.frPyObjects([points], bottom - top, right - left))
        shown[top:bottom, left:right][inside[:, :, 0] > 0] = order


def _bounds(polygon, height, width):
    """The pixels around a polygon, within the image: left, top, right, bottom."""
    low = np.maximum(np.floor(polygon.min(axis=0)), 0)
    high = np.minimum(np.ceil(polygon.max(axis=0)), [width, height])
    return (*low.astype(int), *np.maximum(high, low).astype(int))
