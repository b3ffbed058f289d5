"""Records of objects in COCO's JSON, checked field by field while the file is read."""

import math

import numpy as np

from moco_tf.data.findings import Findings
from moco_tf.detection.data import problems
from moco_tf.detection.data.coco_lists import id_of
from moco_tf.detection.data.objects import Objects, RawAnnotations

UNKNOWN = -1  # number of an image or a class that the file does not list


class ObjectRecords:
    """Turns the records of objects into `Objects` while the JSON is being read.

    Images and classes may stand after the objects in the file: ids are resolved at the end.

    Args:
        path: path of the file, for messages.
        masks, keypoints, densepose: what to read besides boxes.
    """

    def __init__(self, path: str, masks: bool, keypoints: bool, densepose: bool):
        self.path = path
        self.masks = masks
        self.keypoints = keypoints
        self.densepose = densepose
        self.objects = Objects()
        self.findings = Findings()
        self._image_ids = {}  # id -> number in order of appearance, as for the classes
        self._class_ids = {}
        self._keypoint_counts = []  # numbers of coordinates of each object; None without the field

    def take(self, record: dict) -> dict | None:
        """Takes the record of an object; any other record is returned as it is."""
        if "bbox" not in record and "category_id" not in record:
            return record
        name = f"annotation {record.get('id')!r}"
        missing = [field for field in ("image_id", "category_id", "bbox") if field not in record]
        if missing:
            self.findings.add(problems.BAD_FIELD, self.path, name, missing[0], "missing")
            return None
        image, label = record["image_id"], record["category_id"]
        box = _box(record["bbox"])
        area, crowd = record.get("area"), record.get("iscrowd") or 0
        unusable = {
            "image_id": id_of(image) is None,
            "category_id": id_of(label) is None,
            "area": area is not None and not _is_number(area),
            "iscrowd": crowd not in (0, 1),
        }
        if box is None:
            self.findings.add(problems.BAD_BOX, self.path, name, "bbox", record["bbox"])
        for field in [field for field, is_unusable in unusable.items() if is_unusable]:
            self.findings.add(problems.BAD_FIELD, self.path, name, field, record[field])
        if box is not None and not any(unusable.values()):
            self._add_parts(record, name)
            self.objects.add(
                image=self._image_ids.setdefault(id_of(image), len(self._image_ids)),
                label=self._class_ids.setdefault(id_of(label), len(self._class_ids)),
                box=box,
                area=area,
                crowd=crowd,
                record=record.get("id"),
            )
        return None

    def _add_parts(self, record, name):
        """Adds mask, keypoints and DensePose of the next object, as far as they are read."""
        objects = self.objects
        if self.masks:
            mask = record.get("segmentation") or []
            try:
                if isinstance(mask, dict):
                    objects.add_rle(mask)
                else:
                    objects.add_polygons(mask)
            except (KeyError, TypeError, ValueError) as error:
                self.findings.add(
                    problems.BAD_MASK, self.path, name, "", f"segmentation has {error}"
                )
                objects.add_polygons([])
        if self.keypoints:
            points = record.get("keypoints")
            if isinstance(points, list) and all(map(_is_number, points)):
                objects.keypoints.extend(points)
                self._keypoint_counts.append(len(points))
            else:
                self._keypoint_counts.append(None if "keypoints" not in record else -1)
        if self.densepose:
            try:
                objects.add_densepose(record)
            except (KeyError, TypeError, ValueError) as error:
                self.findings.add(problems.BAD_DENSEPOSE, self.path, name, "", str(error))

    def finish(
        self,
        raw: RawAnnotations,
        keypoint_names: list,
        listed_images: set[str],
        listed_classes: set[str],
    ) -> None:
        """Resolves the ids of images and classes, and reads the keypoints.

        Args:
            raw: `RawAnnotations` with these objects, changed in place.
            keypoint_names: names of the keypoints of each class; None where it has none.
            listed_images, listed_classes: ids of all records in the file, as text. An image that
                cannot be used is a finding itself, its objects are not.
        """
        objects = self.objects
        number_of_image = _numbers(self._image_ids, raw.ids, self.findings)
        number_of_class = _numbers(self._class_ids, raw.category_ids, self.findings)
        image_ids, class_ids = [*self._image_ids], [*self._class_ids]
        seen_images = np.array(objects.image, np.int64)
        seen_classes = np.array(objects.label, np.int64)
        objects.image = number_of_image[seen_images]
        objects.label = number_of_class[seen_classes]

        def add_unknown(kind, numbers, field, seen, ids, listed):
            is_listed = np.array([str(value) in listed for value in ids], bool)
            unknown = np.flatnonzero(numbers == UNKNOWN)
            self.findings.add_each(
                kind,
                unknown[~is_listed[seen[unknown]]] if listed else [],
                lambda i: (self.path, f"annotation {objects.record[i]!r}", field, ids[seen[i]]),
            )

        add_unknown(
            problems.UNKNOWN_IMAGE,
            objects.image,
            "image_id",
            seen_images,
            image_ids,
            listed_images,
        )
        add_unknown(
            problems.UNKNOWN_CLASS,
            objects.label,
            "category_id",
            seen_classes,
            class_ids,
            listed_classes,
        )
        if self.keypoints:
            self._finish_keypoints(raw, keypoint_names)

    def _finish_keypoints(self, raw, names):
        """Keeps the classes with keypoints only, and makes the coordinates continuous.

        Keypoints in the file are numbers of pixels, half a pixel less than continuous coordinates.
        Source: detectron2/data/datasets/coco.py.
        """
        objects, kept = self.objects, [i for i, some in enumerate(names) if some]
        different = {tuple(map(str, names[i])) for i in kept}
        if len(different) != 1:
            text = f"{len(different)} lists of keypoint names"
            self.findings.add(problems.NO_KEYPOINT_NAMES, self.path, "categories", "", text)
        raw.keypoint_names = min(different, default=())
        length = 3 * len(raw.keypoint_names)
        counts = np.array([0 if c is None else c for c in self._keypoint_counts], np.int64)
        is_absent = np.array([c is None for c in self._keypoint_counts], bool)
        is_kept = np.isin(objects.label, [*kept, UNKNOWN])
        self.findings.add(problems.NO_KEYPOINT_CLASS, count=int(np.sum(~is_kept)))
        absent = np.flatnonzero(is_kept & is_absent)
        self.findings.add_each(problems.NO_KEYPOINTS, absent, raw.place_of)
        wrong = np.flatnonzero(is_kept & ~is_absent & (counts != length))
        self.findings.add_each(
            problems.BAD_KEYPOINTS,
            wrong,
            lambda i: (
                *raw.place_of(i),
                "keypoints",
                "no list of numbers" if counts[i] < 0 else f"{counts[i]} numbers, not {length}",
            ),
        )
        ends = np.cumsum(np.maximum(counts, 0))
        flat = np.frombuffer(objects.keypoints, np.float32)
        points = np.zeros((len(objects), length // 3, 3), np.float32)
        whole = np.flatnonzero((counts == length) & (length > 0))
        rows = (ends[whole] - length)[:, None] + np.arange(length)
        points[whole] = flat[rows].reshape(len(whole), length // 3, 3)
        self.findings.add_each(
            problems.BAD_KEYPOINTS,
            np.flatnonzero(~np.isfinite(points).all(axis=(1, 2))),
            raw.place_of,
        )
        points[..., :2] += 0.5
        points[points[..., 2] == 0] = 0
        objects.keypoints = points
        new_number = np.full(len(names) + 1, UNKNOWN)
        new_number[kept] = np.arange(len(kept))
        objects.label = new_number[objects.label]  # `UNKNOWN` for classes that are left out
        raw.classes = tuple(raw.classes[i] for i in kept)
        raw.category_ids = [raw.category_ids[i] for i in kept]


def _numbers(seen, ids, findings):
    """Number in `ids` of each id seen in the objects, int64; `UNKNOWN` if it is none of them."""
    number_of = {value: number for number, value in enumerate(ids)}
    by_text = {str(value): number for value, number in number_of.items()}
    result = [number_of.get(value, UNKNOWN) for value in seen]
    for place, value in enumerate(seen):
        if result[place] == UNKNOWN and str(value) in by_text:
            result[place] = by_text[str(value)]
            findings.add(problems.TEXT_IDS, value=f"{value!r}")
    return np.array(result, np.int64)


def _is_number(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def _box(box):
    """x1, y1, x2, y2 of x, y, width, height; None if these are not four finite numbers."""
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(_is_number, box)):
        return None
    x, y, width, height = box
    return x, y, x + width, y + height
