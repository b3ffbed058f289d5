"""PCK, the percentage of correct keypoints: a score of skeletons that have no constants of OKS."""

import itertools
from collections.abc import Sequence

import numpy as np

from moco_tf.detection.data.annotations import Annotations

SHARES = {"PCK05": 0.05, "PCK10": 0.1, "PCK20": 0.2}  # of the box's long side
IOU = 0.5  # at which a detection belongs to an object


def score(annotations: Annotations, predictions: Sequence[dict]) -> dict:
    """Scores keypoints by their distance from the annotated ones.

    A keypoint is correct if it lies at most a share of the long side of the object's box from the
    annotated one. The labeled keypoints of all objects count; those of an object that no detection
    of its class overlaps by an IoU of .5 are wrong. The detection with the highest score takes the
    object that it overlaps most, then the next one.

    Source: Yang and Ramanan, Articulated human detection with flexible mixtures of parts, section
    7.2: PCK with the long side of the box.

    Args:
        annotations: `Annotations` with keypoints, opened for testing.
        predictions: N dicts of boxes, score, label and keypoints, see coco.py.

    Returns:
        Dict, in percent; NaN without labeled keypoints:
            PCK05, PCK10, PCK20: floats.
            median: median distance as a percentage of the long side, of keypoints of detected
                objects.
            per_keypoint: dict from each keypoint to its PCK10.
    """
    parts = []
    spans = itertools.pairwise(annotations.offsets)
    for (start, stop), predicted in zip(spans, predictions, strict=True):
        rows = np.arange(start, stop)
        rows = rows[~annotations.crowd[rows]]
        parts.append(_distances(annotations, rows, predicted))
    joints = len(annotations.keypoint_names)
    distance = np.concatenate(parts) if parts else np.zeros((0, joints))
    shares = {
        name: _percent(distance <= share, ~np.isnan(distance)) for name, share in SHARES.items()
    }
    is_detected = np.isfinite(distance)
    return {
        **shares,
        "median": float(100 * np.median(distance[is_detected])) if is_detected.any() else np.nan,
        "per_keypoint": {
            name: _percent(distance[:, j] <= SHARES["PCK10"], ~np.isnan(distance[:, j]))
            for j, name in enumerate(annotations.keypoint_names)
        },
    }


def _percent(is_correct, is_counted):
    count = is_counted.sum()
    return float(100 * (is_correct & is_counted).sum() / count) if count else float("nan")


def _distances(annotations, rows, predicted):
    """Distances of the keypoints of n objects, as shares of the boxes' long sides: float nxJ.

    NaN for a keypoint that is not labeled, infinity for one of an object that is not detected.
    """
    truth, boxes = annotations.keypoints[rows], annotations.boxes[rows].astype(float)
    distance = np.full(truth.shape[:2], np.inf)
    long_side = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0), 1)
    iou = _iou(np.asarray(predicted["boxes"], float).reshape(-1, 4), boxes)
    iou *= np.asarray(predicted["label"])[:, None] == annotations.labels[rows]
    is_free = np.full(len(rows), True)
    for detection in np.argsort(-np.asarray(predicted["score"]), kind="stable"):
        overlap = iou[detection] * is_free
        if not len(overlap) or overlap.max() < IOU:
            continue
        best = overlap.argmax()
        is_free[best] = False
        points = np.asarray(predicted["keypoints"][detection])[:, :2]
        distance[best] = np.linalg.norm(points - truth[best, :, :2], axis=1) / long_side[best]
    return np.where(truth[..., 2] > 0, distance, np.nan)


def _iou(boxes, others):
    """IoU of each of D boxes with each of n others: float Dxn."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(axis=1) for b in (boxes, others)]
    return shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9)
