"""Lists of images and classes in COCO's JSON, checked field by field."""

import dataclasses
from collections.abc import Callable
from typing import Any

from moco_tf.data.findings import Findings
from moco_tf.detection.data import problems
from moco_tf.detection.data.objects import LARGEST_PX

LARGEST_ID = 2**53  # whole numbers up to it are exact in JSON


@dataclasses.dataclass(frozen=True)
class Image:
    """The record of an image: its path, id, and height and width in px."""

    path: str
    id: int | str
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Class:
    """The record of a class: its id, its name, and the names of its keypoints or None."""

    id: int
    name: str
    keypoints: list | None


def images(
    path: str, records: list, image_path: Callable[[dict], str], findings: Findings
) -> list[Image]:
    """Reads the records of images; those that cannot be used are findings.

    Args:
        path: path of the file, for messages.
        records: dicts of id, file_name, height and width.
        image_path: function from a record to the image's path.
        findings: `Findings` to add to.
    """
    result, known = [], set()
    for record in records:
        record = record if isinstance(record, dict) else {}
        number = id_of(record.get("id"))
        size = tuple(_whole(record.get(field)) for field in ("height", "width"))
        name = f"image {record.get('id')!r}"
        wrong = ["id"] if number is None else []
        for field, px in zip(("height", "width"), size, strict=True):
            wrong += [] if px is not None and 1 <= px <= LARGEST_PX else [field]
        for field in wrong:
            findings.add(problems.BAD_IMAGE, path, name, field, record.get(field, "missing"))
        try:
            file = image_path(record)
        except (KeyError, TypeError, AttributeError):
            wrong.append("file_name")
            value = record.get("file_name", "missing")
            findings.add(problems.BAD_IMAGE, path, name, "file_name", value)
        except ValueError:
            wrong.append("file_name")
            findings.add(problems.BAD_PATH, path, name, "file_name", record["file_name"])
        if number in known:
            findings.add(problems.SAME_IMAGE, path, name, "file_name", record.get("file_name"))
        elif not wrong:
            known.add(number)
            result.append(Image(file, number, size))
    if not records:
        findings.add(problems.NO_IMAGES, path, "", "images", records)
    return result


def classes(path: str, records: list, findings: Findings) -> list[Class]:
    """Reads the records of classes, sorted by id; those that cannot be used are findings.

    Args:
        path: path of the file, for messages.
        records: dicts of id and name, and perhaps keypoints, a list of names.
        findings: `Findings` to add to.
    """
    result, known, names = [], set(), set()
    for record in records:
        record = record if isinstance(record, dict) else {}
        place = path, f"category {record.get('id')!r}"
        number, name = _whole(record.get("id")), record.get("name")
        if number is None or abs(number) > LARGEST_ID:
            findings.add(problems.BAD_CLASS, *place, "id", record.get("id", "missing"))
        elif not isinstance(name, str):
            findings.add(problems.BAD_CLASS, *place, "name", record.get("name", "missing"))
        elif number in known:
            findings.add(problems.SAME_CLASS, *place, "name", name)
        else:
            if name in names:
                findings.add(problems.SAME_NAME, *place, "name", name)
                name = f"{name} (id {number})"
            names.add(name)
            known.add(number)
            result.append(Class(number, name, record.get("keypoints") or None))
    if not records:
        findings.add(problems.NO_CLASSES, path, "", "categories", records)
    return sorted(result, key=lambda c: c.id)


def ids_of(records: list) -> set[str]:
    """Ids of all records of a list, also of those that cannot be used, as text."""
    return {str(id_of(record.get("id"))) for record in records if isinstance(record, dict)}


def id_of(value: Any) -> int | str | None:
    """An id as a whole number or text; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if value == value // 1 else None


def _whole(value: Any) -> int | None:
    """A whole number, also from text such as "80"; None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.lstrip("-").isdecimal() else None
    number = id_of(value)
    return number if isinstance(number, int) else None
