"""Cityscapes' own average precision of masks, from its images of instance ids."""

import numpy as np
import tensorflow as tf
from pycocotools import mask as coco_mask

from moco_tf.detection.data import cityscapes
from moco_tf.detection.scoring.voc import highest_from

THRESHOLDS = np.arange(0.5, 1.0, 0.05)  # IoU, with the rounding that the scripts have
SMALLEST_PX = 100  # of truths that count
PER_CLASS = 1000  # instances: an id is class * 1000 + number, or of a group the class alone
VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)  # ids that are not evaluated


def score(annotations, predictions):
    """Cityscapes' scores of masks.

    A detection meets the truth of its class that it overlaps by more than the threshold. Of those
    that meet a truth the one with the highest score is right, others are wrong. What meets a group,
    or a truth below 100 px, is neither; nor is what meets nothing, if a larger share of it than the
    threshold is void, group or such a truth. The average precision is the area under the curve by
    the trapezoidal rule, without making it fall.

    Source: cityscapesscripts 2.3.0, evaluation/evalInstanceLevelSemanticLabeling.py, without
    distances. As there, a group below 100 px counts twice in that share, and instances of void
    classes do not count. (It fails where nothing is right or wrong; here that is an AP of 0.)

    Args:
        annotations: `records.Annotations` of Cityscapes, opened for testing.
        predictions: N dicts of score, label and rles, as of `coco_scoring`.

    Returns:
        Dict, in percent; classes without truths are NaN and left out of means:
            AP (mean over IoU .5 to .95), AP50, AP75: floats.
            per_class, per_class_50: dict from each class to its AP and AP50.
            recall: float 101; precision: float 2x101xK, at IoU .5 and .75, shares, for curves.

    Raises:
        ValueError: for a missing or broken image of instance ids.
    """
    require_truth(annotations)
    classes, totals = annotations.category_ids, np.zeros(len(annotations.classes), int)
    parts = []
    for number, predicted in enumerate(predictions):
        found, counts = _compared(_ids(annotations, number), classes, predicted)
        parts.append(found | {"truth": found["truth"] + number * np.iinfo(np.uint16).max})
        totals += counts
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(-found["score"], kind="stable")
    found = {name: column[order] for name, column in found.items()}
    recalls = np.linspace(0, 1, 101)
    ap = np.full((len(THRESHOLDS), len(classes)), np.nan)
    curves = np.full((2, len(recalls), len(classes)), np.nan)
    for k in np.flatnonzero(totals):
        own = {name: column[found["label"] == k] for name, column in found.items()}
        for t, threshold in enumerate(THRESHOLDS):
            precision, recall = _curve(own, totals[k], threshold)
            ap[t, k] = 100 * _area(precision, recall)
            if t in (0, 5):
                curves[t // 5, :, k] = highest_from(recalls, precision, recall)
    means = [float(np.nanmean(row)) if totals.any() else float("nan") for row in ap]
    return {
        "AP": float(np.mean(means)),
        "AP50": means[0],
        "AP75": means[5],
        "per_class": dict(zip(annotations.classes, ap.mean(axis=0).tolist())),
        "per_class_50": dict(zip(annotations.classes, ap[0].tolist())),
        "recall": recalls,
        "precision": curves,
    }


def require_truth(annotations):
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


def _compared(ids, classes, predicted):
    """The detections of an image, against its truths of their classes.

    Args:
        ids: uint16 HxW.
        classes: int K, the numbers of the classes in the ids.
        predicted: dict of score, label and rles.

    Returns:
        Dict of arrays D: score, label; overlap: the highest IoU, 0 without a truth; truth: its id;
        counted: whether that counts; ignored: the share of what is not evaluated.
        int K: truths that count.
    """
    counts = np.bincount(ids.ravel())
    truth = np.flatnonzero(counts)
    of_class = np.where(truth < PER_CLASS, truth, truth // PER_CLASS)
    truth, of_class = (x[np.isin(of_class, classes)] for x in (truth, of_class))
    group, small = truth < PER_CLASS, counts[truth] < SMALLEST_PX
    rles = [_encoded(ids == number) for number in truth]
    void = _encoded(np.isin(np.arange(np.iinfo(np.uint16).max + 1), VOID)[ids])

    label, area = np.asarray(predicted["label"]), coco_mask.area(list(predicted["rles"]))
    kept = (label >= 0) & (area > 0)
    label, area, score = label[kept], area[kept].astype(int), np.asarray(predicted["score"])[kept]
    masks = [rle for rle, is_kept in zip(predicted["rles"], kept) if is_kept]
    found = {"score": score.astype(float), "label": label, "overlap": np.zeros(len(label))}
    found |= {"truth": np.zeros(len(label), int), "counted": np.zeros(len(label), bool)}
    found["ignored"] = np.zeros(len(label))
    for k in np.unique(label):
        own, of_k = np.flatnonzero(label == k), np.flatnonzero(of_class == classes[k])
        others = [*(rles[i] for i in of_k), void]
        # Of a crowd, pycocotools gives the intersection as a share of the detection.
        share = coco_mask.iou([masks[i] for i in own], others, [1] * len(others))
        shared = np.rint(share * area[own, None]).astype(int)  # px
        spared = shared[:, :-1] @ (group[of_k].astype(int) + small[of_k])
        found["ignored"][own] = (spared + shared[:, -1]) / area[own]
        if len(of_k):
            union = area[own, None] + counts[truth[of_k]] - shared[:, :-1]
            best = np.argmax(shared[:, :-1] / union, axis=1)
            found["overlap"][own] = (shared[:, :-1] / union)[np.arange(len(own)), best]
            found["truth"][own] = truth[of_k[best]]
            found["counted"][own] = ~(group | small)[of_k[best]]
    counting = of_class[~(group | small)]
    return found, np.sum(counting[:, None] == classes, axis=0)


def _encoded(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


def _curve(found, total, threshold):
    """Precision and recall after each score that occurs, of detections by falling score."""
    meets = found["overlap"] > threshold
    right = np.zeros(len(meets), bool)
    candidates = np.flatnonzero(meets & found["counted"])
    right[candidates[np.unique(found["truth"][candidates], return_index=True)[1]]] = True
    wrong = np.where(meets, found["counted"] & ~right, found["ignored"] <= threshold)
    kept = right | wrong
    hits, score = np.cumsum(right[kept]), found["score"][kept]
    last = np.flatnonzero(np.diff(score, append=-np.inf))  # of equal scores
    return hits[last] / (last + 1), hits[last] / total


def _area(precision, recall):
    """The area under the curve from recall 0 on, where the scripts take precision to be 1."""
    precision = np.concatenate([[1.0], precision])
    return np.sum((precision[1:] + precision[:-1]) / 2 * np.diff(recall, prepend=0.0))
