"""Result of an annotation reader: `RawAnnotations`, with all objects in columns of numbers."""

import array
import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from moco_tf.data.findings import Findings
from moco_tf.detection.data import densepose, run_lengths

# Labels that are no class: a row without an object, and a region that holds many objects, none of
# them outlined.
EMPTY, CROWD = -1, -2
LARGEST_PX = 1_000_000  # side of an image that can be meant


class Objects:
    """Annotated objects in the order of the files, in compact arrays.

    COCO's 860,000 objects take half a GB in this form, and many times that as dicts.

    If masks are needed, a reader adds one before each object; `add_polygons([])` adds an empty one.

    Example:
        >>> objects = Objects()
        >>> objects.add_polygons([[10, 10, 30, 10, 30, 40]])
        >>> objects.add(image=0, label=2, box=(10, 10, 30, 40))
        >>> len(objects)
        1
    """

    def __init__(self):
        self.record = []
        self.image = array.array("q")
        self.label = array.array("q")
        self.box = array.array("d")
        self.area = array.array("d")
        self.crowd = array.array("b")
        self.difficult = array.array("b")
        self.points = array.array("d")  # of all polygons, x, y, x, y, ...
        self.polygon_ends = array.array("q", [0])  # in points, after a first 0
        self.object_ends = array.array("q", [0])  # in polygons, after a first 0
        self.short_polygons = array.array("q")  # numbers of the objects that they belong to
        self.rles = {}  # number of the object: RLE of the whole image
        self.keypoints = array.array("f")
        self.densepose = {}  # number of the object: points and masks, see `densepose.read`

    def __len__(self):
        return len(self.image)

    def add(
        self,
        image: int,
        label: int,
        box: Sequence[float],
        area: float | None = None,
        crowd: bool = False,
        difficult: bool = False,
        record: int | str | None = None,
    ) -> None:
        """Adds an object.

        Args:
            image: number of its image, from 0.
            label: number of its class, from 0.
            box: x1, y1, x2, y2, px, continuous: pixel i covers [i, i + 1).
            area: area of the object, square px; None takes that of the box.
            crowd: whether it is a region of several objects.
            difficult: whether VOC's evaluation ignores it.
            record: its id in the file, or another name that a message can call it by; None takes
                its number among all objects.
        """
        self.record.append(len(self) if record is None else record)
        self.image.append(image)
        self.label.append(label)
        self.box.extend(box)
        self.area.append((box[2] - box[0]) * (box[3] - box[1]) if area is None else area)
        self.crowd.append(bool(crowd))
        self.difficult.append(bool(difficult))

    def add_polygons(self, polygons: Sequence[Sequence[float]]) -> None:
        """Adds the mask of the next object, the union of polygons.

        Args:
            polygons: x, y, x, y, ... of each, px; a polygon of less than three points is left out,
                and the object is listed in `short_polygons`.

        Raises:
            ValueError: for an odd number of coordinates, or one that is not finite; TypeError for
                what is no list of numbers. Nothing is added then.
        """
        for points in polygons:
            if len(points) % 2:
                raise ValueError(f"a polygon of {len(points)} numbers, an odd one")
            if not math.isfinite(sum(points)):
                raise ValueError("a polygon with NaN or infinity")
        for points in polygons:
            if len(points) < 6:
                self.short_polygons.append(len(self))
                continue
            self.points.extend(points)
            self.polygon_ends.append(len(self.points))
        self.object_ends.append(len(self.polygon_ends) - 1)

    def add_rle(self, rle: dict) -> None:
        """Adds the mask of the next object as COCO's RLE, with numbers, bytes or text as counts.

        An empty mask counts as none.

        Raises:
            ValueError: for counts that do not add up to the size, or are in another format.
        """
        run_lengths.check(rle)
        if not isinstance(rle["counts"], (str, bytes)):
            rle = coco_mask.frPyObjects(rle, *rle["size"])
        if coco_mask.area(rle):
            self.rles[len(self)] = rle
        self.object_ends.append(len(self.polygon_ends) - 1)

    def add_densepose(self, record: dict) -> None:
        """Adds the DensePose annotation of the next object, if its record in the JSON has one."""
        if all(name in record for name in densepose.FIELDS) and len(record["dp_x"]):
            self.densepose[len(self)] = densepose.read(record)

    def has_densepose(self) -> np.ndarray:
        """Whether each object has a DensePose annotation: bool M."""
        known = np.full(len(self), False)
        known[list(self.densepose)] = True
        return known

    def has_mask(self) -> np.ndarray:
        """Whether each object has a mask: bool M."""
        known = np.diff(self.object_ends) > 0
        known[list(self.rles)] = True
        return known

    def polygons(self, number: int) -> list[np.ndarray]:
        """The polygons of an object: float64 x, y, x, y, ... of each."""
        first, last = self.object_ends[number], self.object_ends[number + 1]
        ends, points = self.polygon_ends[first : last + 1], np.frombuffer(self.points)
        return [points[start:end] for start, end in itertools.pairwise(ends)]


@dataclasses.dataclass
class RawAnnotations:
    """All images and objects that a reader finds at an address, and what is wrong with them.

    An image or object that cannot be read is a finding that refuses training, and is left out here.

    Attributes:
        images: paths, N.
        ids: ids of the images in the files, N: int or str.
        sizes: int Nx2, heights and widths, px.
        classes: names, K.
        category_ids: int K, the numbers of the classes in the files.
        objects: `Objects`.
        keypoint_names: names of the keypoints of an object, if keypoints are needed.
        source: the annotation file; "" if there are many.
        files: annotation file of each image, N; None if there is one, `source`.
        findings: what the reader has to say; problems.py has the kinds.
    """

    images: list
    ids: list
    sizes: list
    classes: tuple
    category_ids: list
    objects: Objects
    keypoint_names: tuple = ()
    source: str = ""
    files: list | None = None
    findings: Findings = dataclasses.field(default_factory=Findings)

    def file_of(self, image: int) -> str:
        """The annotation file of an image."""
        return self.files[image] if self.files else self.source

    def place_of(self, number: int) -> tuple[str, str]:
        """File and record of an object, for findings."""
        file = self.file_of(self.objects.image[number])
        return file, f"annotation {self.objects.record[number]!r}"
