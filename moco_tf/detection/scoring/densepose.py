"""DensePose's average precision: COCO's, with the geodesic point similarity in place of the IoU.

The geodesic point similarity (GPS) of a person and a detection is the mean of exp(-g^2 / (2 k^2))
over the annotated points. g is the distance on the surface from the annotated point to the one that
is predicted at its place, infinite where none is. k is the mean distance within the point's coarse
part. (The paper has one k, 0.255 m; its authors' evaluation, which all later results use, has one
for each part.)

Source: arXiv:1802.00434, section 2.3; densepose/evaluation/densepose_coco_evaluation.py of
detectron2's projects/DensePose. It rounds places to px of the detection; this file does not.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from moco_tf.detection.data.annotations import Annotations
from moco_tf.detection.data.densepose import FILE_PX, points_of
from moco_tf.detection.data.densepose_surface import Surface
from moco_tf.detection.scoring import coco as coco_scoring

MEAN_DISTANCES = (0.351, 0.107, 0.126, 0.237, 0.173, 0.142, 0.128, 0.150)  # of coarse parts, m
COARSE = np.repeat(np.arange(8), [2, 2, 2, 4, 4, 4, 4, 2])  # the coarse part of each part
SPREAD = np.array([np.nan, *np.take(MEAN_DISTANCES, COARSE)])  # k, by part
SAME_BOX = 0.8  # a detection with this IoU with a person without points does not count as wrong


def score(annotations: Annotations, predictions: Sequence[dict], surface: Surface) -> dict:
    """COCO's scores by GPS.

    Persons without points do not count: neither does a detection with such a person's box, nor one
    in an image where no person has points.

    Args:
        annotations: `Annotations`, opened for testing with DensePose.
        predictions: N dicts with densepose, see coco.py; the best 20 detections of an image count.
        surface: `Surface`.

    Returns:
        The same dict as `coco.score` of keypoints.
    """
    results = coco_scoring.results(annotations, predictions, "bbox")
    maps = []  # of each result
    for predicted in predictions:
        maps.extend(predicted["densepose"][np.asarray(predicted["label"]) >= 0])

    def make(truth, detections, _):
        points = [points_of(packed) for packed in annotations.densepose_points]
        return _Evaluation(truth, detections, points, maps, surface)

    return coco_scoring.evaluated(annotations, results, "bbox", make)


def similarity(
    points: np.ndarray, box: np.ndarray, maps: np.ndarray, boxes: np.ndarray, surface: Surface
) -> np.ndarray:
    """GPS of one person with D detections.

    Args:
        points: float Px5, returned by `densepose.points_of`.
        box: 4 floats, the person's box.
        maps: uint8 DxSxSx3, the detections' cells: part, 255 U, 255 V.
        boxes: float Dx4, the detections' boxes.
        surface: `Surface`.

    Returns:
        float64 D.
    """
    part = points[:, 2].astype(int)
    annotated = surface.nearest(part, points[:, 3:])  # P
    # Evaluation reads the files' places as shares of 255, training as shares of 256.
    place = box[:2] + (points[:, :2] - box[:2]) * FILE_PX / (FILE_PX - 1)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    place = (place - boxes[:, None, :2]) / size[:, None] * maps.shape[1]  # DxPx2, in cells
    predicted_part, uv = _surface_at(maps, place)
    predicted = surface.nearest(predicted_part.ravel(), uv.reshape(-1, 2))
    predicted = predicted.reshape(predicted_part.shape)  # DxP
    distance = surface.distance(np.broadcast_to(annotated, predicted.shape), predicted)
    return np.exp(-(distance**2) / (2 * SPREAD[part] ** 2)).mean(axis=1)


def _surface_at(maps, place):
    """The part of the cell at each place, with U and V interpolated from cells of that part.

    Args:
        maps: uint8 DxSxSx3.
        place: float DxPx2, x and y in cells.

    Returns:
        part: int DxP, 0 outside.
        uv: float DxPx2 in [0, 1].
    """
    size, rows = maps.shape[1], np.arange(len(maps))[:, None]
    is_inside = ((place >= 0) & (place < size)).all(axis=-1)
    place = np.clip(place, 0, size - 1e-3)
    x, y = np.moveaxis(place.astype(int), -1, 0)
    part = maps[rows, y, x, 0].astype(int)
    low = np.floor(place - 0.5)
    share, total, uv = place - 0.5 - low, 0.0, 0.0
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = np.moveaxis(np.clip(low + corner, 0, size - 1).astype(int), -1, 0)
        cell = maps[rows, y, x]
        weight = np.abs(1 - np.array(corner) - share).prod(axis=-1) * (cell[..., 0] == part)
        total = total + weight
        uv = uv + weight[..., None] * cell[..., 1:]
    return np.where(is_inside, part, 0), uv / total[..., None] / 255


class _Evaluation(COCOeval):
    """COCO's matching by GPS.

    Args:
        truth: `COCO` of the persons, with ids from 1 on.
        detections: `COCO` of the detections, with ids from 1 on.
        points: float Px5 of each person.
        maps: uint8 SxSx3 of each detection.
        surface: `Surface`.
    """

    def __init__(self, truth, detections, points, maps, surface):
        super().__init__(truth, detections, "keypoints")  # 20 detections; sizes from medium on
        self.params.iouType = "bbox"  # what is compared by `computeIoU`
        self.points = points
        self.maps = maps
        self.surface = surface

    def _prepare(self):
        super()._prepare()
        for truth in itertools.chain(*self._gts.values()):
            truth["ignore"] = not len(self.points[truth["id"] - 1])

    def computeIoU(self, image, category):
        """GPS of detections, best first, and persons: DxG; [] without either."""
        truths = self._gts[image, category]
        detections = self._dts[image, category]
        order = np.argsort([-detection["score"] for detection in detections], kind="mergesort")
        detections = [detections[i] for i in order[: self.params.maxDets[-1]]]
        if not truths or not detections:
            return []
        maps = np.stack([self.maps[detection["id"] - 1] for detection in detections])
        boxes = _corners(detections)
        gps = np.zeros((len(detections), len(truths)))
        for column, (truth, box) in enumerate(zip(truths, _corners(truths), strict=True)):
            points = self.points[truth["id"] - 1]
            if len(points):
                gps[:, column] = similarity(points, box, maps, boxes, self.surface)
        return gps

    def evaluateImg(self, image, category, areas, most):
        """COCO's evaluation of an image, with the rules for persons without points."""
        entry = super().evaluateImg(image, category, areas, most)
        if entry is None:
            return None
        ignored = np.asarray(entry["gtIgnore"], bool)
        if ignored.all():
            entry["dtIgnore"][:] = True
            return entry
        truths = [self.cocoGt.anns[i] for i in entry["gtIds"]]
        detections = [self.cocoDt.anns[i] for i in entry["dtIds"]]
        if not detections:
            return entry
        crowd = [int(truth["iscrowd"]) for truth in truths]
        overlaps = coco_mask.iou(
            [detection["bbox"] for detection in detections],
            [truth["bbox"] for truth in truths],
            crowd,
        )
        is_taken = entry["gtMatches"][-1] > 0
        for row in np.flatnonzero(entry["dtMatches"][-1] == 0):
            is_free = ~is_taken | np.array(crowd, bool)
            overlap = np.where(is_free, overlaps[row], 0)
            best = len(overlap) - 1 - np.argmax(overlap[::-1])  # the last of equals
            if overlap[best] < SAME_BOX:
                continue
            area = detections[row]["area"]
            is_beyond = (entry["dtMatches"][:, row] == 0) & (area < areas[0] or area > areas[1])
            entry["dtIgnore"][:, row] = ignored[best] | is_beyond
            if ignored[best]:
                is_taken[best] = True
        return entry


def _corners(records):
    """float nx4: x1, y1, x2, y2 of COCO's records."""
    boxes = np.array([record["bbox"] for record in records], float)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
