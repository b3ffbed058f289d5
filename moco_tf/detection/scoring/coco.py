"""COCO's average precision of boxes, masks and keypoints, by pycocotools; and LVIS' variant.

Predictions of N images, everywhere: a sequence of N dicts in the order of the annotations, px of
the image as it is in its file, D detections each:
    boxes: float Dx4: x1, y1, x2, y2; score: float D; label: int D, class, below 0 where it is none.
    rles: D RLE of the image, if masks are predicted; see `masks.pasted_rle`.
    keypoints: float DxJx3: x, y, score; if keypoints are predicted.
    densepose: uint8 DxSxSx3, of cells of the box: part, 255 U, 255 V; if DensePose is predicted.
"""

import base64
import collections
import contextlib
import io
import json

import numpy as np
import tensorflow as tf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

KINDS = ("bbox", "segm", "keypoints")
AREAS = {"all": "AP", "small": "APs", "medium": "APm", "large": "APl"}
CURVES_AT = (0.5, 0.75)  # IoU
OKS_JOINTS = 17


def score(annotations, predictions, kind):
    """COCO's scores.

    Crowds count as COCO counts them: what is in them is neither right nor wrong. Objects that VOC
    calls difficult are taken for crowds. Keypoints are compared by COCO's 17 constants.

    Args:
        annotations: `records.Annotations`, opened for testing.
        predictions: see above.
        kind: of `KINDS`.

    Returns:
        Dict, in percent; NaN is of classes or sizes without objects:
            AP (mean over IoU .5 to .95), AP50, AP75, APs (not of keypoints), APm, APl (of objects
                below 32^2, 96^2 square px, and above), AR: floats.
            per_class, per_class_50: dict from each class to its AP and AP50.
            recall: float 101; precision: float 2x101xK, at IoU .5 and .75, shares, for curves.
            truths, found: int N, for each image how many objects it has, and how many of them some
                detection meets at IoU .5.

    Raises:
        ValueError: if the annotations have no masks or keypoints to compare with.
    """
    return evaluated(annotations, results(annotations, predictions, kind), kind)


def evaluated(annotations, found, kind, make=COCOeval):
    """What `score` gives, of `results`; `make` is COCOeval or a class of its kind."""
    evaluation = _evaluation(annotations, found, kind, make)
    _silently(evaluation.evaluate)
    return _scores(annotations, evaluation)


def score_lvis(annotations, predictions, kind):
    """LVIS' scores: classes count only in those images for which it is known that they are there.

    Detections of a class are left out of images that are not known to have it or to lack it, and
    cannot be wrong where not all of its objects are annotated. The rules are those of the `lvis`
    package, which fails on NumPy 1.24 and later; a test compares with it where it is installed.

    Source: Gupta et al., LVIS, section 4; lvis/eval.py.

    Args:
        annotations, predictions: as of `score`; at most 300 detections an image count.
        kind: "bbox" or "segm".

    Returns:
        As `score`, and APr, APc, APf: of the rare, common and frequent classes.
    """
    with tf.io.gfile.GFile(annotations.source) as file:
        content = json.load(file, object_hook=lambda d: None if "image_id" in d else d)
    images = {image["id"]: image for image in content["images"]}
    known = collections.defaultdict(set)
    for number, (start, stop) in enumerate(zip(annotations.offsets[:-1], annotations.offsets[1:])):
        image = annotations.ids[number]
        known[image] |= set(annotations.category_ids[annotations.labels[start:stop]].tolist())
        known[image] |= set(images[image]["neg_category_ids"])
    best = _best_of_each_image(results(annotations, predictions, kind), 300)
    kept = [result for result in best if result["category_id"] in known[result["image_id"]]]
    evaluation = _evaluation(annotations, kept, kind)
    evaluation.params.maxDets = [300]
    _silently(evaluation.evaluate)
    for entry in filter(None, evaluation.evalImgs):
        if entry["category_id"] in images[entry["image_id"]]["not_exhaustive_category_ids"]:
            entry["dtIgnore"] |= entry["dtMatches"] == 0
    found = _scores(annotations, evaluation)
    frequency = {c["id"]: c["frequency"] for c in content["categories"]}
    groups = np.array([frequency[i] for i in annotations.category_ids.tolist()])
    of_class = np.array(list(found["per_class"].values())) / 100
    for group in "rcf":
        found[f"AP{group}"] = _mean(of_class[groups == group])
    return found


def _best_of_each_image(found, count):
    of_image = collections.defaultdict(list)
    for result in found:
        of_image[result["image_id"]].append(result)
    for several in of_image.values():
        yield from sorted(several, key=lambda result: -result["score"])[:count]


def results(annotations, predictions, kind):
    """Predictions in COCO's format of results, which json.dump takes.

    Args:
        annotations, predictions: as of `score`.
        kind: of `KINDS`, or "densepose".

    Returns:
        List of dicts: image_id, category_id, score and bbox, segmentation, keypoints or, for
        DensePose, uv_shape, 3xSxS, and uv_data, a PNG in base64 whose colors are part, U and V.
    """
    found = []
    for image, predicted in zip(annotations.ids, predictions, strict=True):
        for i in np.flatnonzero(np.asarray(predicted["label"]) >= 0):
            category = int(annotations.category_ids[predicted["label"][i]])
            result = {"image_id": image, "category_id": category}
            result["score"] = float(predicted["score"][i])
            if kind == "bbox":
                result["bbox"] = _bbox(predicted["boxes"][i])
            elif kind == "segm":
                rle = predicted["rles"][i]
                counts = rle["counts"]
                counts = counts.decode() if isinstance(counts, bytes) else counts
                result["segmentation"] = {"size": rle["size"], "counts": counts}
            elif kind == "keypoints":
                result["keypoints"] = _keypoints(predicted["keypoints"][i])
            else:
                cells = predicted["densepose"][i]
                result["uv_shape"] = [cells.shape[2], *cells.shape[:2]]
                png = tf.io.encode_png(cells).numpy()
                result["uv_data"] = base64.b64encode(png).decode()
            found.append(result)
    return found


def _bbox(box):
    x1, y1, x2, y2 = (float(x) for x in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _keypoints(points):
    """COCO numbers pixels, whose centres are half a pixel further."""
    return (np.asarray(points, float) - [0.5, 0.5, 0]).ravel().tolist()


def _evaluation(annotations, found, kind, make=COCOeval):
    """A `COCOeval` of results, not yet run."""
    if kind == "segm" and annotations.rles is None:
        raise ValueError("To score masks, open the annotations for testing and with masks.")
    if kind == "keypoints":
        require_joints(annotations)
    truth, detections = COCO(), COCO()
    truth.dataset = {
        "info": {},
        "images": [
            {"id": i, "height": int(h), "width": int(w)}
            for i, (h, w) in zip(annotations.ids, annotations.sizes)
        ],
        "categories": [
            {"id": int(i), "name": name}
            for i, name in zip(annotations.category_ids, annotations.classes)
        ],
        "annotations": _truths(annotations),
    }
    detections.dataset = {**truth.dataset, "annotations": []}

    def load():
        truth.createIndex()
        if found:
            return truth.loadRes(found)
        detections.createIndex()
        return detections

    return make(truth, _silently(load), kind)


def require_joints(annotations):
    """Raises ValueError for other keypoints than COCO's, whose constants the score has."""
    joints = len(annotations.keypoint_names)
    if joints != OKS_JOINTS:
        raise ValueError(f"Keypoints must be COCO's {OKS_JOINTS}. Received: {joints}.")


def _truths(annotations):
    truths = []
    image = np.repeat(np.arange(annotations.num_examples), annotations.counts)
    for i, box in enumerate(annotations.boxes):
        truths.append(
            {
                "id": i + 1,  # pycocotools takes 0 for no match
                "image_id": annotations.ids[image[i]],
                "category_id": int(annotations.category_ids[annotations.labels[i]]),
                "bbox": _bbox(box),
                "area": float(annotations.area[i]),
                "iscrowd": int(annotations.crowd[i] or annotations.difficult[i]),
            }
        )
        if annotations.rles is not None:
            truths[-1]["segmentation"] = annotations.rles[i]
        if annotations.keypoints is not None:
            points = annotations.keypoints[i]
            truths[-1]["keypoints"] = _keypoints(points)
            truths[-1]["num_keypoints"] = int(np.sum(points[:, 2] > 0))
    return truths


def _scores(annotations, evaluation):
    _silently(evaluation.accumulate)
    params = evaluation.params
    # thresholds x recalls x classes x areas; -1 where there are no objects
    precision = evaluation.eval["precision"][..., -1]
    precision = np.where(precision < 0, np.nan, precision)
    recall = evaluation.eval["recall"][:, :, 0, -1]
    at = [int(np.argmin(np.abs(params.iouThrs - iou))) for iou in CURVES_AT]
    found = {"AP50": _mean(precision[at[0], ..., 0]), "AP75": _mean(precision[at[1], ..., 0])}
    for number, area in enumerate(params.areaRngLbl):
        found[AREAS[area]] = _mean(precision[..., number])
    classes = [(name, precision[:, :, k, 0]) for k, name in enumerate(annotations.classes)]
    number = {image: i for i, image in enumerate(annotations.ids)}
    truths, met = np.zeros((2, annotations.num_examples), int)
    for entry in filter(None, evaluation.evalImgs):
        if entry["aRng"] == params.areaRng[0]:
            counted = ~np.asarray(entry["gtIgnore"], bool)
            truths[number[entry["image_id"]]] += counted.sum()
            met[number[entry["image_id"]]] += np.sum(entry["gtMatches"][at[0]][counted] > 0)
    return {
        **found,
        "AR": _mean(np.where(recall < 0, np.nan, recall)),
        "per_class": {name: _mean(p) for name, p in classes},
        "per_class_50": {name: _mean(p[at[0]]) for name, p in classes},
        "recall": params.recThrs,
        "precision": precision[at, :, :, 0],
        "truths": truths,
        "found": met,
    }


def _mean(shares):
    """Percent; NaN if all are."""
    return float(100 * np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")


def _silently(function):
    """Calls a function of pycocotools, which print."""
    with contextlib.redirect_stdout(io.StringIO()):
        return function()
