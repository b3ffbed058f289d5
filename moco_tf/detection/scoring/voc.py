"""Pascal VOC's average precision, as detectron2's evaluator takes it."""

import numpy as np

THRESHOLDS = np.arange(50, 100, 5) / 100  # IoU


def score(annotations, predictions, eleven_points=True):
    """VOC's scores of boxes.

    Boxes of whole pixels have both ends: 1 is added to their sides. A detection belongs to the
    truth that it overlaps most, if by more than the threshold: it is right if it is the first to,
    wrong if not, and neither if the truth is difficult.

    Source: detectron2/evaluation/pascal_voc_evaluation.py. As there, predictions are rounded as in
    the text files of the challenge, scores to .001 and boxes to .1 px. Equal scores are here in the
    order of the images; there it is not defined.

    Args:
        annotations: `records.Annotations`, opened for testing.
        predictions: N dicts of boxes, score and label, as of `coco_scoring`.
        eleven_points: VOC2007's mean of the precisions at recalls 0, .1, ..., 1; else, as of
            VOC2010, the area under the curve.

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
        of_class = label == k
        truth, overlap, difficult, total = _matched(annotations, k, image[of_class], box[of_class])
        if total == 0:
            continue
        for t, threshold in enumerate(THRESHOLDS):
            precision, recall = _curve(truth, overlap, difficult, total, threshold)
            ap[t, k] = 100 * average(precision, recall)
            if threshold in (0.5, 0.75):
                curves[int(threshold > 0.5), :, k] = highest_from(recalls, precision, recall)
    means = [float(np.nanmean(row)) if np.isfinite(row).any() else float("nan") for row in ap]
    return {
        "AP": float(np.mean(means)),
        "AP50": means[0],
        "AP75": means[5],
        "per_class": dict(zip(annotations.classes, ap.mean(axis=0).tolist())),
        "per_class_50": dict(zip(annotations.classes, ap[0].tolist())),
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


def _matched(annotations, k, image, box):
    """The truth that each detection of a class overlaps most, and how far.

    Returns:
        truth: int D, its number in the annotations; overlap: float D, IoU, -1 if there is none;
        difficult: bool D, whether it is; total: how many truths of the class are not.
    """
    number, overlap = np.zeros(len(image), int), np.full(len(image), -1.0)
    of_class = np.flatnonzero(annotations.labels == k)
    home = np.searchsorted(annotations.offsets, of_class, side="right") - 1
    truths = annotations.boxes[of_class] + np.array([1, 1, 0, 0])
    first, last = (np.searchsorted(home, image, side=side) for side in ("left", "right"))
    for d in np.flatnonzero(last > first):
        ious = _iou(box[d], truths[first[d] : last[d]])
        number[d], overlap[d] = of_class[first[d] + ious.argmax()], ious.max()
    total = int(np.sum(~annotations.difficult[of_class]))
    difficult = annotations.difficult[number] if len(annotations.difficult) else number > 0
    return number, overlap, difficult, total


def _iou(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=1)
    return shared / (
        np.prod(box[2:] - box[:2] + 1) + np.prod(others[:, 2:] - others[:, :2] + 1, axis=1) - shared
    )


def _curve(truth, overlap, difficult, total, threshold):
    """Precision and recall after each detection: float D."""
    meets = overlap > threshold
    right = np.zeros(len(truth), bool)
    candidates = np.flatnonzero(meets & ~difficult)
    right[candidates[np.unique(truth[candidates], return_index=True)[1]]] = True
    wrong = ~right & ~(meets & difficult)
    hits, misses = np.cumsum(right), np.cumsum(wrong)
    return hits / np.maximum(hits + misses, 1e-9), hits / total


def highest_from(recalls, precision, recall):
    """At each of `recalls`, the highest precision at that recall or more; 0 where there is none."""
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return highest[np.searchsorted(recall, recalls, side="left")]


def average_precision_at_11_points(precision, recall):
    """VOC2007's: the mean at recalls 0, .1, ..., 1."""
    return highest_from(np.arange(0.0, 1.1, 0.1), precision, recall).mean()


def area_under_curve(precision, recall):
    """VOC2010's: the area under the curve, made to fall."""
    steps = np.unique(recall)
    return np.sum(highest_from(steps, precision, recall) * np.diff(steps, prepend=0.0))
