"""Reader of COCO's JSON: boxes, polygons, run lengths, crowds, keypoints and DensePose."""

import json
import os
from collections.abc import Callable

import tensorflow as tf

from moco_tf import storage
from moco_tf.detection.data import coco_lists, coco_records, problems
from moco_tf.detection.data.objects import RawAnnotations

ADDRESSES = ("coco:IMAGES_DIR,JSON",)
# Fields of other tools' files, and what to do with each.
OTHERS = {
    "shapes": "It looks like labelme's: use labelme:DIR",
    "_via_img_metadata": "It looks like a project of VIA: use Annotation > Export (COCO format)",
    "regions": "It looks like VIA's own JSON: use Annotation > Export (COCO format)",
    "image": "It looks like CreateML's JSON or Label Studio's JSON-MIN: export as COCO or YOLO",
    "data": "It looks like Label Studio's own JSON: export as COCO, or as YOLO for yolo:DIR",
}


def read(
    address: str, rest: str, *, masks: bool, keypoints: bool, densepose: bool
) -> RawAnnotations:
    """Reads a file of annotations.

    Args:
        address: the whole address, for messages.
        rest: text after the first colon of the address.
        masks: whether to read masks.
        keypoints: whether to read keypoints, and only the classes that have them.
        densepose: whether to read DensePose annotations, where objects have them.

    Raises:
        ValueError: for missing files, and for a file in another format.
    """
    folder, path = folder_and_file(address, rest)
    return read_json(
        path,
        image_path=lambda image: storage.below(folder, image["file_name"]),
        masks=masks,
        keypoints=keypoints,
        densepose=densepose,
    )


def files(address: str, rest: str) -> list[str]:
    """The file that decides what `read` returns."""
    return folder_and_file(address, rest)[1:]


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
        keypoints: whether to read keypoints, and only the classes that have them.
        densepose: whether to read DensePose annotations, where objects have them.
    """
    records = coco_records.ObjectRecords(path, masks, keypoints, densepose)
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    try:
        # The hook takes the records of objects, which are many, as soon as they are read, so that
        # the file is never in memory as Python objects.
        content = json.loads(text, object_hook=records.take)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(_other_format(path, f"{type(error).__name__}: {error}")) from error
    del text
    _require_lists(path, content)
    findings = records.findings
    for record in content.get("annotations") or []:
        if record is not None:
            findings.add(problems.BAD_FIELD, path, "an annotation", "annotation", record)
    images = coco_lists.images(path, content["images"], image_path, findings)
    classes = coco_lists.classes(path, content["categories"], findings)
    raw = RawAnnotations(
        images=[image.path for image in images],
        ids=[image.id for image in images],
        sizes=[image.size for image in images],
        classes=tuple(c.name for c in classes),
        category_ids=[c.id for c in classes],
        objects=records.objects,
        source=path,
        findings=findings,
    )
    listed = coco_lists.ids_of(content["images"]), coco_lists.ids_of(content["categories"])
    records.finish(raw, [c.keypoints for c in classes], *listed)
    return raw


def _require_lists(path, content):
    """Raises ValueError unless the file has COCO's lists of images and categories."""
    if isinstance(content, list):
        names = set(content[0]) if content and isinstance(content[0], dict) else set()
        raise ValueError(_other_format(path, "a list instead of a dict", names))
    content = content or {}
    for name in ("images", "categories"):
        if not isinstance(content.get(name), list):
            names = set(content)
            for value in content.values():
                names |= set(value) if isinstance(value, dict) else set()
            problem = f"{name} = {content[name]!r:.40}" if name in content else f"no field {name}"
            raise ValueError(_other_format(path, problem, names))
    if not isinstance(content.get("annotations", []), list):
        raise ValueError(_other_format(path, "annotations that are no list"))


def _other_format(path, problem, names=()):
    hints = [text for name, text in OTHERS.items() if name in names]
    return (
        "A file of annotations must be COCO's JSON, with images (id, file_name, height, width), "
        f"categories (id, name) and annotations. Received: {path!r}, {problem}. "
        f"{hints[0] if hints else 'Download it again, or fix it'}."
    )
