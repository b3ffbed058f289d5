"""Pascal VOC's average precision of boxes, by the rules of detectron2's evaluator."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moco_tf.detection.data.annotations import Annotations

THRESHOLDS = np.arange(50, 100, 5) / 100  # IoU


def score(
    annotations: Annotations, predictions: Sequence[dict], eleven_points: bool = True
) -> dict:
    """VOC's scores of boxes.

    Boxes are counted in whole pixels with both ends: 1 is added to their sides. A detection belongs
    to the truth that it overlaps most, if by more than the threshold. It is right if it is the
    first one there, wrong if not, and neither if the truth is difficult.

    Source: detectron2/evaluation/pascal_voc_evaluation.py. Like it, this function rounds
    predictions as the text files of the challenge do, scores to .001 and boxes to .1 px. Equal
    scores stay in the order of the images; in detectron2 their order is not defined.

    Args:
        annotations: `Annotations`, opened for testing.
        predictions: N dicts of boxes, score and label, see coco.py.
        eleven_points: takes VOC2007's mean of the precisions at recalls 0, .1, ..., 1; otherwise
            the area under the curve, VOC2010's rule.

    Returns:
        Dict, in percent; classes without objects are NaN and left out of means:
            AP (mean over IoU .5 to .95), AP50, AP75: floats.
            per_class, per_class_50: dict from each class to its AP and AP50.
            recall: float 101; precision: float 2x101xK, at IoU .5 and .75, shares, for curves.
    """
    image, box, label = _sorted(predictions)
    average = average_precision_at_11_points if eleven_points else area_under_curve
    recalls = np.linspace(0, 1, 101)
    ap = np.full((len(THRESHOLDS), len(annotations.classes)), np.nan)
    curves = np.full((2, len(recalls), len(annotations.classes)), np.nan)
    for k in range(len(annotations.classes)):
        is_of_class = label == k
        match = _matched(annotations, k, image[is_of_class], box[is_of_class])
        if match.total == 0:
            continue
        for t, threshold in enumerate(THRESHOLDS):
            precision, recall = _curve(match, threshold)
            ap[t, k] = 100 * average(precision, recall)
            if threshold in (0.5, 0.75):
                curves[int(threshold > 0.5), :, k] = highest_from(recalls, precision, recall)
    means = [float(np.nanmean(row)) if np.isfinite(row).any() else float("nan") for row in ap]
    return {
        "AP": float(np.mean(means)),
        "AP50": means[0],
        "AP75": means[5],
        "per_class": dict(zip(annotations.classes, ap.mean(axis=0).tolist(), strict=True)),
        "per_class_50": dict(zip(annotations.classes, ap[0].tolist(), strict=True)),
        "recall": recalls,
        "precision": curves,
    }


def _sorted(predictions):
    """Image, box and label of all detections, highest scores first."""
    counts = [len(p["score"]) for p in predictions]
    image = np.repeat(np.arange(len(predictions)), counts)
    box = np.concatenate([np.reshape(p["boxes"], (-1, 4)) for p in predictions]).astype(float)
    scores = np.concatenate([p["score"] for p in predictions]).astype(float).round(3)
    label = np.concatenate([p["label"] for p in predictions])
    box[:, :2] += 1  # pixels are numbered from 1
    order = np.argsort(-scores, kind="stable")
    return image[order], box[order].round(1), label[order]


@dataclasses.dataclass
class _Match:
    """The truth that each detection of a class overlaps most.

    Attributes:
        truth: int D, its number in the annotations.
        overlap: float D, IoU with it; -1 without a truth.
        difficult: bool D, whether it is difficult.
        total: number of truths of the class that are not difficult.
    """

    truth: np.ndarray
    overlap: np.ndarray
    difficult: np.ndarray
    total: int


def _matched(annotations, k, image, box):
    """Matches the detections of class k, by their images and boxes."""
    truth = np.zeros(len(image), int)
    overlap = np.full(len(image), -1.0)
    rows = np.flatnonzero(annotations.labels == k)
    image_of_row = np.searchsorted(annotations.offsets, rows, side="right") - 1
    truth_boxes = annotations.boxes[rows] + np.array([1, 1, 0, 0])
    first = np.searchsorted(image_of_row, image, side="left")
    last = np.searchsorted(image_of_row, image, side="right")
    for d in np.flatnonzero(last > first):
        ious = _iou(box[d], truth_boxes[first[d] : last[d]])
        truth[d] = rows[first[d] + ious.argmax()]
        overlap[d] = ious.max()
    difficult = annotations.difficult[truth] if len(annotations.difficult) else truth > 0
    total = int(np.sum(~annotations.difficult[rows]))
    return _Match(truth, overlap, difficult, total)


def _iou(box, others):
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=1)
    area = np.prod(box[2:] - box[:2] + 1)
    other_areas = np.prod(others[:, 2:] - others[:, :2] + 1, axis=1)
    return shared / (area + other_areas - shared)


def _curve(match, threshold):
    """Precision and recall after each detection: float D."""
    is_matched = match.overlap > threshold
    is_right = np.zeros(len(match.truth), bool)
    candidates = np.flatnonzero(is_matched & ~match.difficult)
    _, first = np.unique(match.truth[candidates], return_index=True)
    is_right[candidates[first]] = True
    is_wrong = ~is_right & ~(is_matched & match.difficult)
    hits = np.cumsum(is_right)
    misses = np.cumsum(is_wrong)
    return hits / np.maximum(hits + misses, 1e-9), hits / match.total


def highest_from(recalls: np.ndarray, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """At each of `recalls`, the highest precision at that recall or more; 0 where there is none."""
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return highest[np.searchsorted(recall, recalls, side="left")]


def average_precision_at_11_points(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC2007's average precision: the mean at recalls 0, .1, ..., 1."""
    return highest_from(np.arange(0.0, 1.1, 0.1), precision, recall).mean()


def area_under_curve(precision: np.ndarray, recall: np.ndarray) -> float:
    """VOC2010's average precision: the area under the curve, made monotonic."""
    steps = np.unique(recall)
    return np.sum(highest_from(steps, precision, recall) * np.diff(steps, prepend=0.0))
