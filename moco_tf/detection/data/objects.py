"""Objects as the readers of annotation files find them, in columns of numbers."""

import array
import dataclasses
import itertools

import numpy as np
from pycocotools import mask as coco_mask

from moco_tf.detection.data import densepose

# Labels that are no class: a row without an object, and a region that holds many objects, none of
# them outlined.
EMPTY, CROWD = -1, -2


class Objects:
    """Objects in the order of the files: COCO's 860,000 take half a GB, as dicts they take many.

    `label` and `image` number the classes and images from 0. Only where masks are read has every
    object one, added before the object itself, if only by `add_polygons([])`.
    """

    def __init__(self):
        self.image, self.label = array.array("q"), array.array("q")
        self.box, self.area = array.array("d"), array.array("d")
        self.crowd, self.difficult = array.array("b"), array.array("b")
        self.points = array.array("d")  # of all polygons, x, y, x, y, ...
        self.polygon_ends = array.array("q", [0])  # in points, after a first 0
        self.object_ends = array.array("q", [0])  # in polygons, after a first 0
        self.rles = {}  # number of the object: RLE of the whole image
        self.keypoints = array.array("f")
        self.densepose = {}  # number of the object: points and masks of `densepose.read`

    def __len__(self):
        return len(self.image)

    def add(self, image, label, box, area=None, crowd=False, difficult=False):
        """Adds an object; `box` is x1, y1, x2, y2; `area` is by default that of the box."""
        self.image.append(image)
        self.label.append(label)
        self.box.extend(box)
        self.area.append((box[2] - box[0]) * (box[3] - box[1]) if area is None else area)
        self.crowd.append(bool(crowd))
        self.difficult.append(bool(difficult))

    def add_polygons(self, polygons):
        """The mask of the next object; what has less than three points is no polygon."""
        for points in polygons:
            if len(points) >= 6 and len(points) % 2 == 0:
                self.points.extend(points)
                self.polygon_ends.append(len(self.points))
        self.object_ends.append(len(self.polygon_ends) - 1)

    def add_rle(self, rle):
        """Likewise, as COCO's RLE: the counts may be numbers, bytes or text."""
        if not isinstance(rle["counts"], (str, bytes)):
            rle = coco_mask.frPyObjects(rle, *rle["size"])
        self.rles[len(self)] = rle
        self.object_ends.append(len(self.polygon_ends) - 1)

    def add_densepose(self, record):
        """DensePose's annotation of the next object, if its record in COCO's JSON has one."""
        if all(name in record for name in densepose.FIELDS) and len(record["dp_x"]):
            self.densepose[len(self)] = densepose.read(record)

    def has_densepose(self):
        """Bool M."""
        known = np.full(len(self), False)
        known[list(self.densepose)] = True
        return known

    def has_mask(self):
        """Bool M."""
        known = np.diff(self.object_ends) > 0
        known[list(self.rles)] = True
        return known

    def polygons(self, number):
        """The polygons of an object: list of float64 arrays x, y, x, y, ..."""
        first, last = self.object_ends[number], self.object_ends[number + 1]
        ends, points = self.polygon_ends[first : last + 1], np.frombuffer(self.points)
        return [points[start:end] for start, end in itertools.pairwise(ends)]


@dataclasses.dataclass
class Found:
    """What a reader makes of an address: all images and objects, nothing dropped.

    Attributes:
        images: paths, N.
        ids: of the images as the files have them, N: int or str.
        sizes: int Nx2, heights and widths, px.
        classes: names, K.
        category_ids: int K, the numbers of the classes in the files.
        objects: `Objects`.
        keypoint_names: of the keypoints of an object, if they were asked for.
        source: the annotation file; "" if there are many.
    """

    images: list
    ids: list
    sizes: list
    classes: tuple
    category_ids: list
    objects: Objects
    keypoint_names: tuple = ()
    source: str = ""
