"""DensePose's average precision: COCO's, with the geodesic point similarity in place of the IoU.

GPS of a person and a detection is the mean of exp(-g^2 / (2 k^2)) over the annotated points: g is
the distance on the surface from the annotated point to what is predicted at its place, infinite
where that is nothing; k is the mean distance within the point's coarse part. (The paper has one k,
0.255 m; its authors' evaluation, with which all later results are, has one for each part.)

Source: arXiv:1802.00434, section 2.3; densepose/evaluation/densepose_coco_evaluation.py of
detectron2's projects/DensePose. It rounds places to px of the detection; here they are not.
"""

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from moco_tf.detection.data.densepose import FILE_PX, points_of
from moco_tf.detection.scoring import coco as coco_scoring

MEAN_DISTANCES = (0.351, 0.107, 0.126, 0.237, 0.173, 0.142, 0.128, 0.150)  # of coarse parts, m
COARSE = np.repeat(np.arange(8), [2, 2, 2, 4, 4, 4, 4, 2])  # the coarse part of each part
SPREAD = np.array([np.nan, *np.take(MEAN_DISTANCES, COARSE)])  # k, by part
SAME_BOX = 0.8  # IoU of a detection with a person without points, not to count as wrong


def score(annotations, predictions, surface):
    """COCO's scores, of GPS.

    Persons without points are neither to be found nor wrong to find: a detection whose box is
    theirs, and one in an image of none but them, does not count.

    Args:
        annotations: `records.Annotations`, opened for testing with DensePose.
        predictions: as of `coco_scoring`, with DensePose; the best 20 of an image count.
        surface: `densepose_surface.Surface`.

    Returns:
        As `coco_scoring.score` of keypoints.
    """
    found = coco_scoring.results(annotations, predictions, "bbox")
    maps = [
        cells
        for one in predictions
        for cells, label in zip(one["densepose"], one["label"])
        if label >= 0
    ]

    def make(truth, detections, _):
        points = [points_of(packed) for packed in annotations.densepose_points]
        return _Evaluation(truth, detections, points, maps, surface)

    return coco_scoring.evaluated(annotations, found, "bbox", make)


def similarity(points, box, maps, boxes, surface):
    """GPS of a person with detections.

    Args:
        points: float Px5, as of `densepose.points_of`.
        box: 4 floats, the person's.
        maps: uint8 DxSxSx3, as of `coco_scoring`.
        boxes: float Dx4.
        surface: `Surface`.

    Returns:
        float64 D.
    """
    part = points[:, 2].astype(int)
    own = surface.nearest(part, points[:, 3:])
    # Evaluation takes the files' places for shares of 255, training for shares of 256.
    place = box[:2] + (points[:, :2] - box[:2]) * FILE_PX / (FILE_PX - 1)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    place = (place - boxes[:, None, :2]) / size[:, None] * maps.shape[1]  # DxPx2, in cells
    found, uv = _surface_at(maps, place)
    reached = surface.nearest(found.ravel(), uv.reshape(-1, 2)).reshape(found.shape)
    distance = surface.distance(np.broadcast_to(own, reached.shape), reached)
    return np.exp(-(distance**2) / (2 * SPREAD[part] ** 2)).mean(axis=1)


def _surface_at(maps, place):
    """The part of the cell that a place is in, and U and V between those of this part around it.

    Args:
        maps: uint8 DxSxSx3.
        place: float DxPx2, x and y in cells.

    Returns:
        int DxP, 0 outside; and float DxPx2 in [0, 1].
    """
    size, rows = maps.shape[1], np.arange(len(maps))[:, None]
    inside = ((place >= 0) & (place < size)).all(axis=-1)
    place = np.clip(place, 0, size - 1e-3)
    x, y = np.moveaxis(place.astype(int), -1, 0)
    part = maps[rows, y, x, 0].astype(int)
    low = np.floor(place - 0.5)
    share, total, uv = place - 0.5 - low, 0.0, 0.0
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = np.moveaxis(np.clip(low + corner, 0, size - 1).astype(int), -1, 0)
        near = maps[rows, y, x]
        weight = np.abs(1 - np.array(corner) - share).prod(axis=-1) * (near[..., 0] == part)
        total, uv = total + weight, uv + weight[..., None] * near[..., 1:]
    return np.where(inside, part, 0), uv / total[..., None] / 255


class _Evaluation(COCOeval):
    """COCO's matching, by GPS.

    Args:
        truth, detections: `COCO`, whose ids are from 1 on.
        points: of each person of the truth, float Px5.
        maps: of each detection, uint8 SxSx3.
        surface: `Surface`.
    """

    def __init__(self, truth, detections, points, maps, surface):
        super().__init__(truth, detections, "keypoints")  # 20 detections; sizes from medium on
        self.params.iouType = "bbox"  # what is compared by `computeIoU`
        self.points, self.maps, self.surface = points, maps, surface

    def _prepare(self):
        super()._prepare()
        for truth in (gt for several in self._gts.values() for gt in several):
            truth["ignore"] = not len(self.points[truth["id"] - 1])

    def computeIoU(self, image, category):
        """GPS of detections, best first, and persons: DxG; [] without either."""
        truths, found = self._gts[image, category], self._dts[image, category]
        order = np.argsort([-one["score"] for one in found], kind="mergesort")
        found = [found[i] for i in order[: self.params.maxDets[-1]]]
        if not truths or not found:
            return []
        maps, boxes = np.stack([self.maps[one["id"] - 1] for one in found]), _corners(found)
        gps = np.zeros((len(found), len(truths)))
        for column, (truth, box) in enumerate(zip(truths, _corners(truths))):
            points = self.points[truth["id"] - 1]
            if len(points):
                gps[:, column] = similarity(points, box, maps, boxes, self.surface)
        return gps

    def evaluateImg(self, image, category, areas, most):
        """COCO's, and the rules for persons without points."""
        entry = super().evaluateImg(image, category, areas, most)
        if entry is None:
            return None
        ignored = np.asarray(entry["gtIgnore"], bool)
        if ignored.all():
            entry["dtIgnore"][:] = True
            return entry
        truths = [self.cocoGt.anns[i] for i in entry["gtIds"]]
        found = [self.cocoDt.anns[i] for i in entry["dtIds"]]
        crowd = [int(truth["iscrowd"]) for truth in truths]
        boxes = [[one["bbox"] for one in several] for several in (found, truths)]
        overlap = coco_mask.iou(*boxes, crowd) if found else []
        matched, taken = entry["dtMatches"][-1], entry["gtMatches"][-1] > 0
        for row in np.flatnonzero(matched == 0):
            free = ~taken | np.array(crowd, bool)
            near = np.where(free, overlap[row], 0)
            best = len(near) - 1 - np.argmax(near[::-1])  # of equals the last
            if near[best] < SAME_BOX:
                continue
            area = found[row]["area"]
            beyond = (entry["dtMatches"][:, row] == 0) & (area < areas[0] or area > areas[1])
            entry["dtIgnore"][:, row] = ignored[best] | beyond
            if ignored[best]:
                taken[best] = True
        return entry


def _corners(several):
    boxes = np.array([one["bbox"] for one in several], float)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
