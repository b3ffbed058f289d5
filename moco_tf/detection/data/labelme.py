"""Reader of labelme's JSON files: polygons, rectangles, circles and masks."""

import base64
import binascii
import json
import math
import os

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from moco_tf.data.findings import Findings
from moco_tf.detection.data import masks as instance_masks
from moco_tf.detection.data import problems
from moco_tf.detection.data.objects import LARGEST_PX, Objects, RawAnnotations

ADDRESSES = ("labelme:DIR",)
IGNORED = ("__ignore__", "_background_")  # labels that labelme's own converters leave out
CORNERS = 32  # of the polygon that stands for a circle
FARTHEST = 10**9  # px from the corner of an image; areas of such boxes do not overflow


def read(
    address: str, rest: str, *, masks: bool, keypoints: bool, densepose: bool
) -> RawAnnotations:
    """Reads all JSON files of a folder, each beside its image.

    Classes are the labels of all files, sorted. Shapes of one label with the same group_id are one
    object. Points and lines are left out and counted.

    Source: labelme's documentation of its file and its examples/instance_segmentation.

    Args:
        address: the whole address, for messages.
        rest: text after the first colon of the address.
        masks: whether to read masks.
        keypoints: must be false.
        densepose: must be false.

    Raises:
        ValueError: for a folder without files.
    """
    if keypoints or densepose:
        raise ValueError(
            f"labelme's files give boxes and masks here, no keypoints and no DensePose. Received: "
            f"{address!r}. Use coco:IMAGES_DIR,JSON."
        )
    root = os.path.expanduser(rest)
    paths = sorted(tf.io.gfile.glob(os.path.join(root, "*.json")))
    if not paths:
        raise ValueError(
            "The address must be labelme:DIR, a folder of labelme's JSON files. Received: "
            f"{address!r}, without any."
        )
    raw = RawAnnotations([], [], [], (), [], Objects(), files=[], findings=Findings())
    names = []  # label of each object
    for path in paths:
        content = _content(path, raw.findings)
        if content is not None:
            _add_file(raw, names, path, content, masks)
    raw.classes = tuple(sorted(set(names)))
    raw.category_ids = list(range(len(raw.classes)))
    number_of = {name: number for number, name in enumerate(raw.classes)}
    raw.objects.label = [number_of[name] for name in names]
    return raw


def _content(path, findings):
    """The content of a file with a usable size and image; None, and a finding, for any other."""
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        content = json.loads(text)
        shapes, name = content["shapes"], content["imagePath"]
        size = content["imageHeight"], content["imageWidth"]
        is_whole = isinstance(shapes, list) and isinstance(name, str)
    except (ValueError, KeyError, TypeError) as error:
        text = f"must be labelme's JSON, {type(error).__name__}: {error}"
        findings.add(problems.BAD_FILE, path, value=text)
        return None
    if not is_whole:
        findings.add(problems.BAD_FILE, path, value="shapes must be a list, imagePath a text")
    elif not all(type(px) is int and 0 < px <= LARGEST_PX for px in size):
        findings.add(problems.BAD_IMAGE, path, "", "imageHeight, imageWidth", size)
    else:
        return content
    return None


def _add_file(raw, names, path, content, masks):
    """Adds the image and the objects of a file."""
    name = content["imagePath"].replace("\\", "/")
    image = os.path.normpath(os.path.join(os.path.dirname(path), name))
    if not tf.io.gfile.exists(image):
        image = os.path.join(os.path.dirname(path), os.path.basename(name))
    if not tf.io.gfile.exists(image):
        raw.findings.add(problems.NO_IMAGE_FILE, path, "", "imagePath", content["imagePath"])
        return
    size = content["imageHeight"], content["imageWidth"]
    groups = {}
    for number, shape in enumerate(content["shapes"], 1):
        record = f"shape {number}"
        part = _part(shape, size, path, record, raw.findings)
        if part is not None:
            group = shape.get("group_id")
            key = record if group is None else (shape["label"], group)
            groups.setdefault(key, []).append((record, shape["label"], part))
    for parts in groups.values():
        record, label, _ = parts[0]
        _add_object(raw, record, [part for _, _, part in parts], size, masks)
        names.append(label)
    raw.images.append(image)
    raw.ids.append(os.path.splitext(os.path.basename(path))[0])
    raw.sizes.append(size)
    raw.files.append(path)


def _part(shape, size, path, record, findings):
    """A shape as the points of a polygon, float Nx2, or as a bool mask; None, and a finding."""
    try:
        label, points = shape["label"], np.array(shape["points"], float).reshape(-1, 2)
        kind = shape.get("shape_type") or "polygon"
        if not isinstance(label, str) or not (np.abs(points) < FARTHEST).all():
            raise ValueError(f"label must be a text, and points numbers below {FARTHEST:,} px")
        if label in IGNORED:
            findings.add(problems.IGNORED_LABEL, path, record, "label", label)
            return None
        if kind == "mask":
            return _mask(shape, points, size)
        polygon = _polygon(kind, points)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        text = f"{type(error).__name__}: {error}"
        findings.add(problems.BAD_LINE, path, record, value=text)
        return None
    if polygon is None:
        findings.add(problems.OTHER_SHAPE, path, record, "shape_type", kind)
    elif len(polygon) < 3:
        findings.add(problems.SHORT_POLYGON, path, record, "points", points.tolist())
        return None
    return polygon


def _polygon(kind, points):
    """The corners of a polygon, a rectangle or a circle, float Nx2; None for any other shape."""
    if kind == "polygon":
        return points
    if kind in ("rectangle", "circle") and len(points) != 2:
        raise ValueError(f"a {kind} has 2 points, not {len(points)}")
    if kind == "rectangle":
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    if kind == "circle":  # its center, and a point on it
        angles = np.arange(CORNERS) * 2 * math.pi / CORNERS
        radius = np.linalg.norm(points[1] - points[0])
        return points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return None


def _mask(shape, points, size):
    """A mask of the whole image, bool HxW, from the PNG of a part of it."""
    encoded = base64.b64decode(shape["mask"], validate=True)
    try:
        part = tf.io.decode_png(encoded, channels=1).numpy()[..., 0] > 0
    except tf.errors.InvalidArgumentError as error:
        raise ValueError("mask must be a PNG in base64") from error
    mask = np.zeros(size, bool)
    left, top = points.min(axis=0).astype(int)
    if left < 0 or top < 0 or left + part.shape[1] > size[1] or top + part.shape[0] > size[0]:
        raise ValueError(f"mask of {part.shape} px at {left}, {top} leaves the image, {size} px")
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask


def _add_object(raw, record, parts, size, masks):
    """Adds an object of one or several shapes."""
    polygons = [part for part in parts if part.dtype != bool]
    bitmaps = [part for part in parts if part.dtype == bool]
    corners = list(polygons)
    for bitmap in bitmaps:
        rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
        if len(rows):
            corners.append(np.array([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]))
    points = np.concatenate(corners) if corners else np.zeros((1, 2))
    box = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
    if masks and bitmaps:
        whole = np.logical_or.reduce(bitmaps)
        if polygons:
            rle = instance_masks.rle_of_polygons([p.ravel() for p in polygons], *size)
            whole |= coco_mask.decode(rle) > 0
        raw.objects.add_rle(instance_masks.rle_of_window(whole, 0, 0, *size))
    elif masks:
        raw.objects.add_polygons([polygon.ravel().tolist() for polygon in polygons])
    raw.objects.add(image=len(raw.images), label=0, box=box, record=record)
