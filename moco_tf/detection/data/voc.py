"""Reader of Pascal VOC's XML: boxes of VOC itself, or of another set laid out like it."""

import os
import xml.etree.ElementTree

import tensorflow as tf

from moco_tf import storage
from moco_tf.data.class_names import VOC
from moco_tf.detection.data.objects import Objects, RawAnnotations

ADDRESSES = ("voc:VOC_DIR:SPLIT[+VOC_DIR:SPLIT]",)


def read(
    address: str, rest: str, *, masks: bool, keypoints: bool, densepose: bool
) -> RawAnnotations:
    """Reads the files of one or several splits, such as VOC2007 and VOC2012 trainval.

    Classes are VOC's 20 if the annotations name no others, else all that the folder's annotations
    name. Boxes become continuous: the files number pixels from 1, both ends included.

    Source: detectron2/data/datasets/pascal_voc.py.

    Args:
        address: the whole address, for messages.
        rest: text after the first colon of the address.
        masks: must be false; VOC has no masks of all objects.
        keypoints: must be false.
        densepose: must be false.

    Raises:
        ValueError: for missing or broken files.
    """
    if masks or keypoints or densepose:
        raise ValueError(
            "VOC's annotations give boxes only; they have no masks of all objects, and no "
            f"keypoints or DensePose. Received: {address!r}. Use coco:IMAGES_DIR,JSON."
        )
    images, ids, sizes = [], [], []
    objects, class_names = Objects(), []  # the class of each object
    roots = []
    for part in rest.split("+"):
        root, colon, split = part.rpartition(":")
        root = os.path.expanduser(root)
        listed = os.path.join(root, "ImageSets", "Main", f"{split}.txt")
        if not colon or not tf.io.gfile.exists(listed):
            raise ValueError(
                "The address must be voc:VOC_DIR:SPLIT, such that "
                f"VOC_DIR/ImageSets/Main/SPLIT.txt exists. Received: {address!r}."
            )
        roots.append(root)
        for name in (line.split()[0] for line in _read(listed).splitlines() if line.strip()):
            file_name, size, boxes = _parse(storage.below(root, "Annotations", f"{name}.xml"))
            for class_name, difficult, box in boxes:
                objects.add(len(images), len(class_names), box, difficult=difficult)
                class_names.append(class_name)
            suffix = os.path.splitext(file_name)[1] or ".jpg"
            images.append(storage.below(root, "JPEGImages", name + suffix))
            ids.append(name)
            sizes.append(size)
    classes = VOC if set(class_names) <= set(VOC) else _all_classes(roots)
    number_of = {name: number for number, name in enumerate(classes)}
    objects.label = [number_of[name] for name in class_names]
    return RawAnnotations(images, ids, sizes, classes, list(range(len(classes))), objects)


def _parse(path):
    """The file name, (height, width), and the objects of an XML file: (name, difficult, box)."""
    try:
        root = xml.etree.ElementTree.fromstring(_read(path))
        size = int(root.find("size/height").text), int(root.find("size/width").text)
        objects = []
        for element in root.iter("object"):
            ends = element.find("bndbox")
            x1, y1, x2, y2 = (float(ends.find(e).text) for e in ("xmin", "ymin", "xmax", "ymax"))
            difficult = element.findtext("difficult", "0").strip() == "1"
            objects.append((element.find("name").text.strip(), difficult, (x1 - 1, y1 - 1, x2, y2)))
        return root.findtext("filename", ""), size, objects
    except (xml.etree.ElementTree.ParseError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            "Annotations must be VOC's XML, with size (width, height) and objects (name, bndbox). "
            f"Received: {path!r}, {type(error).__name__}: {error}. Fix or replace this file."
        ) from error
    except tf.errors.NotFoundError as error:
        raise ValueError(
            f"Every image of the split must have annotations. Missing: {path!r}."
        ) from error


def _all_classes(roots):
    """The names of all annotated objects in these folders, sorted, whatever their split."""
    names = set()
    for root in roots:
        for path in tf.io.gfile.glob(os.path.join(root, "Annotations", "*.xml")):
            _, _, objects = _parse(path)
            names |= {name for name, _, _ in objects}
    return tuple(sorted(names))


def _read(path):
    with tf.io.gfile.GFile(path) as file:
        return file.read()
