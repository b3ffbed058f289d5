"""Reader of COCO's JSON: boxes, polygons, run lengths, crowds, keypoints and DensePose."""

import json
import os
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.detection.data.objects import Objects, RawAnnotations

ADDRESSES = ("coco:IMAGES_DIR,JSON",)


def read(
    address: str, rest: str, *, masks: bool, keypoints: bool, densepose: bool
) -> RawAnnotations:
    """Reads a file of annotations.

    Args:
        address: the whole address, for messages.
        rest: text after the first colon of the address.
        masks: whether to read masks.
        keypoints: whether to read keypoints, and only the objects that have them.
        densepose: whether to read DensePose annotations, where objects have them.

    Raises:
        ValueError: for missing or broken files, and annotations of unknown images or classes.
    """
    folder, path = folder_and_file(address, rest)
    return read_json(
        path,
        image_path=lambda image: storage.below(folder, image["file_name"]),
        masks=masks,
        keypoints=keypoints,
        densepose=densepose,
    )


def folder_and_file(address: str, rest: str) -> list[str]:
    """IMAGES_DIR and JSON of an address; ValueError unless both exist."""
    paths = [os.path.expanduser(path) for path in rest.split(",")]
    gfile = tf.io.gfile
    if len(paths) != 2 or not gfile.isdir(paths[0]) or not gfile.exists(paths[1]):
        raise ValueError(
            f"The address must be {address.partition(':')[0]}:IMAGES_DIR,JSON, a folder and a file "
            f"that exist. Received: {address!r}."
        )
    return paths


def read_json(
    path: str,
    image_path: Callable[[dict], str],
    masks: bool,
    keypoints: bool,
    densepose: bool = False,
) -> RawAnnotations:
    """Reads a file of annotations.

    Args:
        path: path of the file.
        image_path: function from an image's record in the file to the image's path.
        masks: whether to read masks.
        keypoints: whether to read keypoints, and only the objects that have them.
        densepose: whether to read DensePose annotations, where objects have them.
    """
    objects = Objects()

    def keep(record):
        # JSON calls this for every dict that it reads. The records of objects, which are many, are
        # turned into numbers at once, so that the file is never in memory as Python objects.
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
        images = content["images"]
        categories = sorted(content["categories"], key=lambda c: c["id"])
        raw = RawAnnotations(
            images=[image_path(i) for i in images],
            ids=[i["id"] for i in images],
            sizes=[(i["height"], i["width"]) for i in images],
            classes=tuple(c["name"] for c in categories),
            category_ids=[c["id"] for c in categories],
            objects=objects,
            source=path,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            "A file of annotations must be COCO's JSON, with images (id, file_name, height, "
            f"width), categories (id, name) and annotations. Received: {path!r}, "
            f"{type(error).__name__}: {error}. Download it again, or fix it."
        ) from error
    if keypoints:
        _read_keypoints(path, raw, [c.get("keypoints") for c in categories])
    objects.image = _numbers(path, "image_id", objects.image, raw.ids)
    objects.label = _numbers(path, "category_id", objects.label, raw.category_ids)
    return raw


def _add(objects, record, masks, keypoints, densepose):
    """Adds the object of a record."""
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
        image=record["image_id"],
        label=record["category_id"],
        box=(x, y, x + width, y + height),
        area=record.get("area"),
        crowd=record.get("iscrowd", 0),
    )


def _read_keypoints(path, raw, names):
    """Keeps the classes with keypoints only, and makes the coordinates continuous.

    Keypoints in the file are numbers of pixels, half a pixel less than continuous coordinates.
    Source: detectron2/data/datasets/coco.py.

    Args:
        path: path of the file, for messages.
        raw: `RawAnnotations`, changed in place.
        names: names of the keypoints of each class; None where it has none.
    """
    kept = [i for i, keypoint_names in enumerate(names) if keypoint_names]
    different = {tuple(names[i]) for i in kept}
    points = np.array(raw.objects.keypoints, np.float32)
    expected = len(raw.objects) * 3 * len(names[kept[0]]) if kept else 0
    if len(different) != 1 or len(points) != expected:
        raise ValueError(
            "For keypoints, categories must name their keypoints, all the same, and each object "
            f"have x, y and visibility of every one. Received in {path!r}: {len(different)} lists "
            f"of keypoint names, {len(raw.objects)} objects with {len(points)} numbers. "
            "COCO has them in person_keypoints_*.json."
        )
    points = points.reshape(-1, 3)
    points[:, :2] += 0.5
    points[points[:, 2] == 0] = 0
    raw.objects.keypoints = points
    raw.keypoint_names = tuple(names[kept[0]])
    raw.classes = tuple(raw.classes[i] for i in kept)
    raw.category_ids = [raw.category_ids[i] for i in kept]


def _numbers(path, field, values, known):
    """Position in `known` of each value, int64; ValueError for an unknown value."""
    values = np.array(values, np.int64)
    known = np.array(known, np.int64)
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
