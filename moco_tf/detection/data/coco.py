"""Annotations in COCO's JSON: boxes, polygons, run lengths, crowds, keypoints and DensePose's."""

import json
import os

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.detection.data.objects import Found, Objects

ADDRESSES = ("coco:IMAGES_DIR,JSON",)


def read(address, rest, *, masks, keypoints, densepose):
    """Reads a file of annotations.

    Args:
        address: for messages.
        rest: what follows its colon.
        masks: whether to read masks.
        keypoints: whether to read keypoints, and only the objects that have them.
        densepose: whether to read DensePose's annotations, where objects have them.

    Returns:
        `Found`.

    Raises:
        ValueError: for missing or broken files, and annotations of unknown images or classes.
    """
    folder, path = folder_and_file(address, rest)
    return read_json(
        path, lambda image: storage.below(folder, image["file_name"]), masks, keypoints, densepose
    )


def folder_and_file(address, rest):
    """IMAGES_DIR and JSON of an address; ValueError unless both exist."""
    parts = [os.path.expanduser(part) for part in rest.split(",")]
    gfile = tf.io.gfile
    if len(parts) != 2 or not gfile.isdir(parts[0]) or not gfile.exists(parts[1]):
        raise ValueError(
            f"The address must be {address.partition(':')[0]}:IMAGES_DIR,JSON, a folder and a file "
            f"that exist. Received: {address!r}."
        )
    return parts


def read_json(path, image_path, masks, keypoints, densepose=False):
    """Reads a file of annotations.

    Args:
        path: of the file.
        image_path: from an image's record in it to its path.
        masks, keypoints, densepose: as of `read`.
    """
    objects = Objects()

    def keep(record):
        # Called for every dict as it is read: those of objects, which are many, end here as
        # numbers, so that the file is never in memory as Python objects.
        if "image_id" not in record or "category_id" not in record:
            return record
        try:
            if not keypoints or "keypoints" in record:
                _add(objects, record, masks, keypoints, densepose)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                "Objects must have numbers image_id, category_id and bbox [x, y, width, height]; "
                "segmentation, if any, must be polygons or run lengths. Received in "
                f"{path!r}: annotation id {record.get('id')!r}, {type(error).__name__}: {error}."
            ) from error
        return None

    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        content = json.loads(text, object_hook=keep)
        images, categories = content["images"], sorted(content["categories"], key=lambda c: c["id"])
        ids, category_ids = [i["id"] for i in images], [c["id"] for c in categories]
        found = Found(
            images=[image_path(i) for i in images],
            ids=ids,
            sizes=[(i["height"], i["width"]) for i in images],
            classes=tuple(c["name"] for c in categories),
            category_ids=category_ids,
            objects=objects,
            source=path,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            "A file of annotations must be COCO's JSON, with images (id, file_name, height, "
            f"width), categories (id, name) and annotations. Received: {path!r}, "
            f"{type(error).__name__}: {error}. Download it again, or mend it."
        ) from error
    if keypoints:
        _read_keypoints(path, found, [c.get("keypoints") for c in categories])
    objects.image = _numbers(path, "image_id", objects.image, ids)
    objects.label = _numbers(path, "category_id", objects.label, found.category_ids)
    return found


def _add(objects, record, masks, keypoints, densepose):
    x, y, width, height = record["bbox"]
    if masks:
        mask = record.get("segmentation") or []
        if isinstance(mask, dict):
            objects.add_rle(mask)
        else:
            objects.add_polygons(mask)
    if keypoints:
        objects.keypoints.extend(record["keypoints"])
    if densepose:
        objects.add_densepose(record)
    objects.add(
        *(record["image_id"], record["category_id"], (x, y, x + width, y + height)),
        area=record.get("area"),
        crowd=record.get("iscrowd", 0),
    )


def _read_keypoints(path, found, names):
    """Leaves the classes with keypoints, whose coordinates become continuous.

    Keypoints in the file are numbers of pixels, which is half a pixel from continuous coordinates.
    Source: detectron2/data/datasets/coco.py.
    """
    kept = [i for i, of_class in enumerate(names) if of_class]
    different = {tuple(names[i]) for i in kept}
    raw = np.array(found.objects.keypoints, np.float32)
    expected = len(found.objects) * 3 * len(names[kept[0]]) if kept else 0
    if len(different) != 1 or len(raw) != expected:
        raise ValueError(
            "For keypoints, categories must name their keypoints, all the same, and each object "
            f"have x, y and visibility of every one. Received in {path!r}: {len(different)} kinds "
            f"of categories with keypoints, {len(found.objects)} objects with {len(raw)} numbers. "
            "COCO has them in person_keypoints_*.json."
        )
    raw = raw.reshape(-1, 3)
    raw[:, :2] += 0.5
    raw[raw[:, 2] == 0] = 0
    found.objects.keypoints = raw
    found.keypoint_names = tuple(names[kept[0]])
    found.classes = tuple(found.classes[i] for i in kept)
    found.category_ids = [found.category_ids[i] for i in kept]


def _numbers(path, field, values, known):
    """Position in `known` of each value: int64."""
    values, known = np.array(values, np.int64), np.array(known, np.int64)
    order = np.argsort(known)
    place = order[np.searchsorted(known, values, sorter=order).clip(max=len(known) - 1)]
    strange = np.flatnonzero(known[place] != values)
    if len(strange):
        raise ValueError(
            f"Every {field} must be one of the file's own. Received in {path!r}: "
            f"{sorted(set(values[strange].tolist()))[:3]} ({len(strange)} objects). Add the "
            "missing records, or take these objects out."
        )
    return place
