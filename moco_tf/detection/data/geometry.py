"""Plausibility of annotated geometry: boxes, masks and keypoints that contradict one another."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from moco_tf.detection.data import problems, skeletons
from moco_tf.detection.data.objects import RawAnnotations

TOLERANCE_PX = 1.0  # tools round and count pixels from 0 or 1
MARGIN = 0.1  # of a box's sides, in which keypoints may lie outside it
FAR = 3  # heights and widths of an image that a mask may reach beyond it
LARGER = 3.0  # a box of x1, y1, x2, y2 has many times the area of its mask


def examine(raw: RawAnnotations, pairs: Sequence[str] = ()) -> None:
    """Adds findings about the geometry of annotations to their findings.

    Args:
        raw: annotations as a reader returns them.
        pairs: given counterparts of keypoints, see `skeletons.twins`.
    """
    objects = raw.objects
    image = np.asarray(objects.image, np.int64)
    label = np.asarray(objects.label, np.int64)
    rows = np.flatnonzero((image >= 0) & (label >= 0))
    boxes = np.array(objects.box, float).reshape(-1, 4)
    sizes = np.array(raw.sizes, float).reshape(-1, 2)
    _classes(raw, label[rows])
    is_finite = np.isfinite(boxes).all(axis=1)
    raw.findings.add_each(
        problems.BAD_BOX,
        rows[~is_finite[rows]],
        lambda i: (*raw.place_of(i), "x1, y1, x2, y2", boxes[i].tolist()),
    )
    rows = rows[is_finite[rows]]
    if len(rows):
        bounds = _mask_bounds(raw, image, len(boxes))
        _boxes(raw, rows, boxes, sizes[image[rows]], bounds)
        _crowds(raw, rows)
        _copies(raw, rows, np.column_stack([image, label, boxes]))
    if raw.keypoint_names:
        _skeleton(raw, pairs)
        _keypoints(raw, rows, boxes)


def _classes(raw, label):
    counts = np.bincount(label, minlength=len(raw.classes))
    unused = [name for name, count in zip(raw.classes, counts, strict=True) if not count]
    if len(label):
        raw.findings.add(problems.UNUSED_CLASS, value=", ".join(unused), count=len(unused))
    known = {}
    for name in raw.classes:
        other = known.setdefault("".join(name.lower().split()), name)
        if other != name:
            raw.findings.add(problems.SIMILAR_CLASSES, raw.source, value=f"{other!r} and {name!r}")


def _boxes(raw, rows, all_boxes, sizes, bounds):
    """Adds findings about boxes and the bounds of masks.

    Args:
        raw: annotations.
        rows: int n, numbers of the objects to look at.
        all_boxes: float Mx4: x1, y1, x2, y2, px, of all objects.
        sizes: float nx2, heights and widths of their images.
        bounds: float Mx4, bounds of their masks, NaN without a mask.
    """
    boxes, bounds = all_boxes[rows], bounds[rows]
    limits = sizes[:, ::-1]

    def place(i):
        number = rows[i]
        height, width = sizes[i].astype(int).tolist()
        x1, y1, x2, y2 = (round(float(v), 2) for v in boxes[i])
        text = f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g} px, image {width} x {height} px"
        return *raw.place_of(number), "", text

    def mask_place(i):
        x1, y1, x2, y2 = bounds[i]
        text = f"mask from {x1:g}, {y1:g} to {x2:g}, {y2:g}"
        x1, y1, x2, y2 = boxes[i]
        return *raw.place_of(rows[i]), "", f"{text}, box from {x1:g}, {y1:g} to {x2:g}, {y2:g} px"

    is_share = (boxes >= 0).all(axis=1) & (boxes <= 1).all(axis=1) & (sizes > 2).all(axis=1)
    if is_share.mean() > 0.5:
        raw.findings.add_each(problems.SHARES, np.flatnonzero(is_share), place)
        return
    is_far = (bounds[:, :2] < -FAR * limits).any(axis=1)
    is_far |= (bounds[:, 2:] > (1 + FAR) * limits).any(axis=1)
    raw.findings.add_each(problems.FAR, np.flatnonzero(is_far), mask_place)
    is_beyond = (boxes[:, :2] < -TOLERANCE_PX).any(axis=1)
    is_beyond |= (boxes[:, 2:] > limits + TOLERANCE_PX).any(axis=1)
    low = np.maximum(boxes[:, :2], bounds[:, :2])
    high = np.minimum(boxes[:, 2:], bounds[:, 2:])
    mask_area = _area(bounds)
    with np.errstate(invalid="ignore"):
        is_large = _area(boxes) > LARGER * mask_area
        shared = np.maximum(high - low, 0).prod(axis=1)
        is_outside = shared < 0.5 * mask_area
    # With x1, y1, x2, y2 read as x, y, width, height, no width is below its x.
    widths, starts = boxes[:, 2:] - boxes[:, :2], boxes[:, :2]
    could_be_corners = (widths >= starts).all(axis=1).mean() > 0.95
    is_odd = is_beyond | is_large
    has_mask = ~np.isnan(mask_area)
    many_beyond = is_beyond.mean() > (0.2 if could_be_corners else 0.5)
    many_large = has_mask.any() and is_large[has_mask].mean() > 0.5
    if raw.source and (many_beyond or many_large):
        raw.findings.add_each(problems.CORNERS, np.flatnonzero(is_odd), place)
    else:
        raw.findings.add_each(problems.BEYOND, np.flatnonzero(is_beyond), place)
    raw.findings.add_each(problems.OUTSIDE, np.flatnonzero(is_outside), mask_place)


def _area(boxes):
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)


def _mask_bounds(raw, image, count):
    """Bounds of the objects' masks: float Mx4, NaN without a mask. Adds findings about sizes."""
    objects = raw.objects
    bounds = np.full((count, 4), np.nan)
    if len(objects.object_ends) == count + 1:
        vertex_ends = np.asarray(objects.polygon_ends)[np.asarray(objects.object_ends)] // 2
        has_polygon = np.diff(vertex_ends) > 0
        starts = vertex_ends[:-1][has_polygon]
        points = np.frombuffer(objects.points).reshape(-1, 2)
        if len(starts):
            bounds[has_polygon, :2] = np.minimum.reduceat(points, starts)
            bounds[has_polygon, 2:] = np.maximum.reduceat(points, starts)
    numbers, rles = [*objects.rles], [*objects.rles.values()]
    if numbers:
        bounds[numbers] = coco_mask.toBbox(rles)
        bounds[numbers, 2:] += bounds[numbers, :2]
    other_size = []
    for number, rle in zip(numbers, rles, strict=True):
        size = raw.sizes[image[number]]
        if image[number] >= 0 and tuple(rle["size"]) != tuple(size):
            other_size.append(number)
    raw.findings.add_each(
        problems.OTHER_SIZE,
        other_size,
        lambda i: (
            *raw.place_of(i),
            "",
            f"size {list(objects.rles[i]['size'])}, image {[*map(int, raw.sizes[image[i]])]}",
        ),
    )
    return bounds


def _crowds(raw, rows):
    crowd = np.array(raw.objects.crowd, bool)[rows]
    if 0.5 < crowd.mean() < 1:
        raw.findings.add_each(
            problems.MANY_CROWDS, rows[crowd], lambda i: (*raw.place_of(i), "iscrowd", 1)
        )


def _copies(raw, rows, columns):
    """Adds findings about objects that repeat an earlier one.

    Args:
        raw: annotations.
        rows: int n, numbers of the objects to look at.
        columns: float MxC, all that must agree, of all objects.
    """
    order = rows[np.lexsort(columns[rows].T)]
    is_copy = (columns[order][1:] == columns[order][:-1]).all(axis=1)
    raw.findings.add_each(problems.TWICE, np.sort(order[1:][is_copy]), raw.place_of)


def _skeleton(raw, pairs):
    """Adds findings about keypoints without a counterpart in mirrored images."""
    names = raw.keypoint_names
    twin = skeletons.twins(names, pairs)
    sided, others = skeletons.without_twin(names, twin)
    add = raw.findings.add
    add(problems.NO_TWIN, raw.source, value=", ".join(sided), count=len(sided))
    if len(sided) + len(others) == len(names):
        add(problems.UNPAIRED, raw.source, value=", ".join(others), count=len(others))


def _keypoints(raw, rows, all_boxes):
    """Adds findings about the places and visibilities of keypoints."""
    points = raw.objects.keypoints[rows]
    boxes = all_boxes[rows]
    visibility = points[..., 2]
    odd = ~np.isin(visibility, (0, 1, 2)).all(axis=1)
    raw.findings.add_each(problems.VISIBILITY, rows[odd], raw.place_of)
    margin = MARGIN * (boxes[:, 2:] - boxes[:, :2]) + TOLERANCE_PX
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    xy = points[..., :2]
    is_outside = ((xy < low[:, None]) | (xy > high[:, None])).any(axis=-1)
    labeled = visibility > 0
    counts = labeled.sum(axis=1)
    is_wrong = (is_outside & labeled).sum(axis=1) > counts / 2
    raw.findings.add_each(problems.KEYPOINTS_OUTSIDE, rows[is_wrong], raw.place_of)
