"""Small sets in COCO's format whose JSON is changed as people and tools get it wrong."""

import json

import numpy as np
from detection_sets import annotation, write_coco

from moco_tf.data.findings import REFUSED
from moco_tf.detection.data.annotations import examine

SIZE = (40, 50)
BOX = (5, 5, 20, 20)


def coco(folder, records, count=2, change=lambda content: None, **options):
    """Writes a set, changes the content of its JSON, and returns its address."""
    images = [np.zeros((*SIZE, 3), np.uint8)] * count
    address = write_coco(folder / "set", [SIZE] * count, records, images=images, **options)
    file = folder / "set" / "set.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return address


def examined(address, training=True, **options):
    return examine(address, training=training, **options)


def messages(address, **options):
    """The lines of all that refuses training."""
    return examined(address, **options).findings.lines([REFUSED])


def crowd(number, box=BOX, **more):
    return annotation(number, box, iscrowd=1, segmentation=full_rle(SIZE), **more)


def full_rle(size):
    return {"size": list(size), "counts": [0, size[0] * size[1]]}


def set_at(path, value):
    """A change of a JSON's content at a path such as "images.0.width"; None removes nothing."""

    def change(content):
        *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        for parent in parents:
            content = content[parent]
        if value == "remove":
            del content[last]
        else:
            content[last] = value

    return change
