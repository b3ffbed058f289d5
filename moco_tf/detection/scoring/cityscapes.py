"""Cityscapes' average precision of masks, from its images of instance ids."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from moco_tf.detection.data import cityscapes
from moco_tf.detection.data.annotations import Annotations
from moco_tf.detection.scoring.voc import highest_from

THRESHOLDS = np.arange(0.5, 1.0, 0.05)  # IoU, with the rounding of the official scripts
SMALLEST_PX = 100  # area of the truths that count
PER_CLASS = 1000  # the id of an instance is class * 1000 + number, that of a group the class alone
VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)  # ids that are not evaluated


def score(annotations: Annotations, predictions: Sequence[dict]) -> dict:
    """Cityscapes' scores of masks.

    A detection matches the truth of its class that it overlaps by more than the threshold. Of the
    detections that match a truth, the one with the highest score is right and the others are wrong.
    A detection that matches a group, or a truth below 100 px, is neither. Nor is one that matches
    nothing, if a larger share of it than the threshold is void, group or such a truth. The average
    precision is the area under the curve by the trapezoidal rule; the curve need not be monotonic.

    Source: cityscapesscripts 2.3.0, evaluation/evalInstanceLevelSemanticLabeling.py, without
    distances. Like it, this function counts a group below 100 px twice in that share, and leaves
    out instances of void classes. (The script fails where nothing is right or wrong; this function
    returns an AP of 0.)

    Args:
        annotations: `Annotations` of Cityscapes, opened for testing.
        predictions: N dicts of score, label and rles, see coco.py.

    Returns:
        Dict, in percent; classes without truths are NaN and left out of means:
            AP (mean over IoU .5 to .95), AP50, AP75: floats.
            per_class, per_class_50: dict from each class to its AP and AP50.
            recall: float 101; precision: float 2x101xK, at IoU .5 and .75, shares, for curves.

    Raises:
        ValueError: for a missing or broken image of instance ids.
    """
    require_truth(annotations)
    classes = annotations.category_ids
    totals = np.zeros(len(classes), int)
    matches = []
    for number, predicted in enumerate(predictions):
        match, counts = _compared(_ids(annotations, number), classes, predicted)
        match.truth += number * np.iinfo(np.uint16).max
        matches.append(match)
        totals += counts
    match = _joined(matches)
    match = match.rows(np.argsort(-match.score, kind="stable"))
    recalls = np.linspace(0, 1, 101)
    ap = np.full((len(THRESHOLDS), len(classes)), np.nan)
    curves = np.full((2, len(recalls), len(classes)), np.nan)
    for k in np.flatnonzero(totals):
        match_of_class = match.rows(match.label == k)
        for t, threshold in enumerate(THRESHOLDS):
            precision, recall = _curve(match_of_class, totals[k], threshold)
            ap[t, k] = 100 * _area(precision, recall)
            if t in (0, 5):
                curves[t // 5, :, k] = highest_from(recalls, precision, recall)
    means = [float(np.nanmean(row)) if totals.any() else float("nan") for row in ap]
    return {
        "AP": float(np.mean(means)),
        "AP50": means[0],
        "AP75": means[5],
        "per_class": dict(zip(annotations.classes, ap.mean(axis=0).tolist(), strict=True)),
        "per_class_50": dict(zip(annotations.classes, ap[0].tolist(), strict=True)),
        "recall": recalls,
        "precision": curves,
    }


def require_truth(annotations: Annotations) -> None:
    """Raises ValueError unless each image has its image of instance ids."""
    paths = [cityscapes.annotation_path(image, "instanceIds.png") for image in annotations.images]
    missing = [path for path in paths if not tf.io.gfile.exists(path)]
    if missing:
        raise ValueError(
            "Cityscapes' score needs the *_gtFine_instanceIds.png of gtFine. Missing: "
            f"{', '.join(missing[:3])} ({len(missing)} of {len(paths)}). Download gtFine again, or "
            'choose metric="coco".'
        )


def _ids(annotations, number):
    """The instance ids of an image: uint16 HxW."""
    path = cityscapes.annotation_path(annotations.images[number], "instanceIds.png")
    size = tuple(annotations.sizes[number].tolist())
    try:
        ids = tf.io.decode_png(tf.io.read_file(path), 1, tf.uint16).numpy()[..., 0]
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"{path!r} cannot be decoded: {error}. Download gtFine again.") from error
    if ids.shape != size:
        raise ValueError(
            f"{path!r} must have the {size} px of the polygons. Received: {ids.shape} px. Download "
            "gtFine again."
        )
    return np.asfortranarray(ids)  # the order of run lengths


@dataclasses.dataclass
class _Match:
    """D detections, and what each one overlaps most among the truths of its class.

    Attributes:
        score: float D.
        label: int D.
        overlap: float D, the highest IoU; 0 without a truth.
        truth: int D, the id of that truth.
        counted: bool D, whether that truth counts.
        ignored: float D, share of the detection that is not evaluated.
    """

    score: np.ndarray
    label: np.ndarray
    overlap: np.ndarray
    truth: np.ndarray
    counted: np.ndarray
    ignored: np.ndarray

    def rows(self, which):
        """Some of the detections, by their numbers or by a bool array."""
        return _Match(**{name: column[which] for name, column in vars(self).items()})


def _joined(matches):
    """The detections of all images."""
    names = vars(matches[0])
    return _Match(**{n: np.concatenate([getattr(m, n) for m in matches]) for n in names})


def _compared(ids, classes, predicted):
    """Compares the detections of an image with its truths of their classes.

    Args:
        ids: uint16 HxW.
        classes: int K, the numbers of the classes in the ids.
        predicted: dict of score, label and rles.

    Returns:
        `_Match`; and int K, the number of truths of each class that count.
    """
    counts = np.bincount(ids.ravel())
    truth = np.flatnonzero(counts)
    category = np.where(truth < PER_CLASS, truth, truth // PER_CLASS)
    is_evaluated = np.isin(category, classes)
    truth, category = truth[is_evaluated], category[is_evaluated]
    is_group = truth < PER_CLASS
    is_small = counts[truth] < SMALLEST_PX
    rles = [_encoded(ids == number) for number in truth]
    void = _encoded(np.isin(np.arange(np.iinfo(np.uint16).max + 1), VOID)[ids])

    label = np.asarray(predicted["label"])
    area = coco_mask.area(list(predicted["rles"]))
    kept = np.flatnonzero((label >= 0) & (area > 0))
    label, area = label[kept], area[kept].astype(int)
    masks = [predicted["rles"][i] for i in kept]
    match = _Match(
        score=np.asarray(predicted["score"])[kept].astype(float),
        label=label,
        overlap=np.zeros(len(label)),
        truth=np.zeros(len(label), int),
        counted=np.zeros(len(label), bool),
        ignored=np.zeros(len(label)),
    )
    for k in np.unique(label):
        detections = np.flatnonzero(label == k)
        truths = np.flatnonzero(category == classes[k])
        others = [*(rles[i] for i in truths), void]
        # For a crowd, pycocotools returns the intersection as a share of the detection.
        share = coco_mask.iou([masks[i] for i in detections], others, [1] * len(others))
        shared = np.rint(share * area[detections, None]).astype(int)  # px
        ignored = shared[:, :-1] @ (is_group[truths].astype(int) + is_small[truths])
        match.ignored[detections] = (ignored + shared[:, -1]) / area[detections]
        if len(truths):
            union = area[detections, None] + counts[truth[truths]] - shared[:, :-1]
            iou = shared[:, :-1] / union
            best = np.argmax(iou, axis=1)
            match.overlap[detections] = iou[np.arange(len(detections)), best]
            match.truth[detections] = truth[truths[best]]
            match.counted[detections] = ~(is_group | is_small)[truths[best]]
    counted = category[~(is_group | is_small)]
    return match, np.sum(counted[:, None] == classes, axis=0)


def _encoded(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def _curve(match, total, threshold):
    """Precision and recall after each score that occurs, of detections by falling score."""
    is_matched = match.overlap > threshold
    is_right = np.zeros(len(is_matched), bool)
    candidates = np.flatnonzero(is_matched & match.counted)
    _, first = np.unique(match.truth[candidates], return_index=True)
    is_right[candidates[first]] = True
    is_wrong = np.where(is_matched, match.counted & ~is_right, match.ignored <= threshold)
    kept = is_right | is_wrong
    hits = np.cumsum(is_right[kept])
    score = match.score[kept]
    last = np.flatnonzero(np.diff(score, append=-np.inf))  # of equal scores
    return hits[last] / (last + 1), hits[last] / total


def _area(precision, recall):
    """The area under the curve from recall 0 on, where the official scripts set precision to 1."""
    precision = np.concatenate([[1.0], precision])
    return np.sum((precision[1:] + precision[:-1]) / 2 * np.diff(recall, prepend=0.0))
