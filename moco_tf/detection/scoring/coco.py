"""COCO's average precision of boxes, masks and keypoints, by pycocotools; and LVIS' variant.

All scores take predictions in one form: a sequence of N dicts in the order of the annotations, with
D detections each, in px of the image in its file:
    boxes: float Dx4: x1, y1, x2, y2.
    score: float D.
    label: int D, class; below 0 in a row without a detection.
    rles: D RLE of the image, if masks are predicted; see `masks.pasted_rle`.
    keypoints: float DxJx3: x, y, score; if keypoints are predicted.
    densepose: uint8 DxSxSx3, of cells of the box: part, 255 U, 255 V; if DensePose is predicted.
"""

import base64
import collections
import contextlib
import io
import itertools
import json
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from moco_tf.detection.data.annotations import Annotations
from moco_tf.detection.scoring import by_class

IOU_TYPES = ("bbox", "segm", "keypoints")
AREAS = {"all": "AP", "small": "APs", "medium": "APm", "large": "APl"}
CURVES_AT = (0.5, 0.75)  # IoU


def score(annotations: Annotations, predictions: Sequence[dict], iou_type: str) -> dict:
    """COCO's scores.

    Crowds follow COCO's rule: a detection inside one is neither right nor wrong. Objects that VOC
    calls difficult count as crowds. Keypoints are compared by `Annotations.sigmas`.

    Args:
        annotations: `Annotations`, opened for testing.
        predictions: N dicts, see the top of this file.
        iou_type: one of `IOU_TYPES`.

    Returns:
        Dict, in percent; NaN for classes or sizes without objects:
            AP (mean over IoU .5 to .95), AP50, AP75, APs (not for keypoints), APm, APl (of objects
                below 32^2, 96^2 square px, and above), AR: floats.
            per_class, per_class_50: dict from each class to its AP and AP50.
            recall: float 101.
            precision: float 2x101xK, at IoU .5 and .75, shares, for curves.
            truths: int N, number of objects of each image.
            matched: int N, number of these that a detection matches at IoU .5.

    Raises:
        ValueError: if the annotations have no masks or keypoints to compare with.
    """
    return evaluated(annotations, results(annotations, predictions, iou_type), iou_type)


def evaluated(
    annotations: Annotations, detections: list[dict], iou_type: str, make=COCOeval
) -> dict:
    """Scores detections in COCO's format.

    Args:
        annotations: `Annotations`, opened for testing.
        detections: list returned by `results`.
        iou_type: one of `IOU_TYPES`.
        make: `COCOeval`, or a function with its arguments that returns an instance of a subclass.

    Returns:
        The same dict as `score`.
    """
    evaluation = _evaluation(annotations, detections, iou_type, make)
    return _scores(annotations, evaluation)


def score_lvis(annotations: Annotations, predictions: Sequence[dict], iou_type: str) -> dict:
    """LVIS' scores: a class counts only in images that are known to have it or to lack it.

    Detections of a class are left out of other images, and cannot be wrong where not all objects of
    the class are annotated. The rules are those of the `lvis` package, which fails on NumPy 1.24
    and later; a test compares with it where it is installed.

    Source: Gupta et al., LVIS, section 4; lvis/eval.py.

    Args:
        annotations: `Annotations`, opened for testing.
        predictions: N dicts, see the top of this file; 300 detections of an image count at most.
        iou_type: "bbox" or "segm".

    Returns:
        The same dict as `score`, and APr, APc, APf: AP of the rare, common and frequent classes.
    """
    with tf.io.gfile.GFile(annotations.source) as file:
        content = json.load(file, object_hook=lambda d: None if "image_id" in d else d)
    images = {image["id"]: image for image in content["images"]}
    known = collections.defaultdict(set)
    for image, (start, stop) in zip(
        annotations.ids, itertools.pairwise(annotations.offsets), strict=True
    ):
        known[image] |= set(annotations.category_ids[annotations.labels[start:stop]].tolist())
        known[image] |= set(images[image]["neg_category_ids"])
    best = _best_of_each_image(results(annotations, predictions, iou_type), 300)
    kept = [result for result in best if result["category_id"] in known[result["image_id"]]]
    evaluation = _evaluation(annotations, kept, iou_type)
    evaluation.params.maxDets = [300]

    def adjust(evaluation):
        for entry in filter(None, evaluation.evalImgs):
            image = images[annotations.ids[entry["image_id"] - 1]]
            if entry["category_id"] in image["not_exhaustive_category_ids"]:
                entry["dtIgnore"] |= entry["dtMatches"] == 0

    scores = _scores(annotations, evaluation, adjust)
    frequency = {c["id"]: c["frequency"] for c in content["categories"]}
    groups = np.array([frequency.get(i, "") for i in annotations.category_ids.tolist()])
    per_class = np.array(list(scores["per_class"].values())) / 100
    for group in "rcf":
        scores[f"AP{group}"] = _mean(per_class[groups == group])
    return scores


def _best_of_each_image(detections, count):
    records_of = collections.defaultdict(list)
    for detection in detections:
        records_of[detection["image_id"]].append(detection)
    for in_image in records_of.values():
        yield from sorted(in_image, key=lambda detection: -detection["score"])[:count]


def results(annotations: Annotations, predictions: Sequence[dict], iou_type: str) -> list[dict]:
    """Converts predictions to COCO's format of results, which json.dump takes.

    Args:
        annotations: `Annotations`.
        predictions: N dicts, see the top of this file.
        iou_type: one of `IOU_TYPES`, or "densepose".

    Returns:
        List of dicts: image_id, category_id, score and bbox, segmentation, keypoints or, for
        DensePose, uv_shape, 3xSxS, and uv_data, a PNG in base64 whose colors are part, U and V.
    """
    detections = []
    for image, predicted in zip(annotations.ids, predictions, strict=True):
        for i in np.flatnonzero(np.asarray(predicted["label"]) >= 0):
            category = int(annotations.category_ids[predicted["label"][i]])
            result = {"image_id": image, "category_id": category}
            result["score"] = float(predicted["score"][i])
            if iou_type == "bbox":
                result["bbox"] = _bbox(predicted["boxes"][i])
            elif iou_type == "segm":
                rle = predicted["rles"][i]
                counts = rle["counts"]
                counts = counts.decode() if isinstance(counts, bytes) else counts
                result["segmentation"] = {"size": rle["size"], "counts": counts}
            elif iou_type == "keypoints":
                result["keypoints"] = _keypoints(predicted["keypoints"][i])
            else:
                cells = predicted["densepose"][i]
                result["uv_shape"] = [cells.shape[2], *cells.shape[:2]]
                png = tf.io.encode_png(cells).numpy()
                result["uv_data"] = base64.b64encode(png).decode()
            detections.append(result)
    return detections


def _bbox(box):
    x1, y1, x2, y2 = (float(x) for x in box)
    return [x1, y1, x2 - x1, y2 - y1]


def _keypoints(points):
    """Keypoints in COCO's form: numbers of pixels, whose centers are half a pixel further."""
    return (np.asarray(points, float) - [0.5, 0.5, 0]).ravel().tolist()


def _evaluation(annotations, results, iou_type, make=COCOeval):
    """A `COCOeval` of results, not yet run."""
    if iou_type == "segm" and annotations.rles is None:
        raise ValueError("To score masks, open the annotations for testing and with masks.")
    # pycocotools sorts ids, so they are the images' numbers, from 1 on, whatever the file has.
    number_of = {image: number for number, image in enumerate(annotations.ids, 1)}
    results = [{**result, "image_id": number_of[result["image_id"]]} for result in results]
    truth, detections = COCO(), COCO()
    truth.dataset = {
        "info": {},
        "images": [
            {"id": number, "height": int(h), "width": int(w)}
            for number, (h, w) in enumerate(annotations.sizes, 1)
        ],
        "categories": [
            {"id": int(i), "name": name}
            for i, name in zip(annotations.category_ids, annotations.classes, strict=True)
        ],
        "annotations": _truths(annotations),
    }
    detections.dataset = {**truth.dataset, "annotations": []}

    def load():
        truth.createIndex()
        if results:
            return truth.loadRes(results)
        detections.createIndex()
        return detections

    evaluation = make(truth, _silently(load), iou_type)
    if iou_type == "keypoints":
        if annotations.sigmas is None:
            names = ", ".join(annotations.keypoint_names)
            raise ValueError(
                "COCO's score of keypoints needs a constant for each keypoint other than COCO's "
                f"17. Received: {names}. Give `--config.data.keypoint_sigmas`, or use PCK."
            )
        evaluation.params.kpt_oks_sigmas = annotations.sigmas
    return evaluation


def _truths(annotations):
    """The objects in COCO's format."""
    truths = []
    image = np.repeat(np.arange(annotations.num_examples), annotations.counts)
    for i, box in enumerate(annotations.boxes):
        truths.append(
            {
                "id": i + 1,  # pycocotools takes 0 for no match
                "image_id": int(image[i]) + 1,
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


def _scores(annotations, evaluation, adjust=lambda evaluation: None):
    params = evaluation.params
    at_50, at_75 = (int(np.argmin(np.abs(params.iouThrs - iou))) for iou in CURVES_AT)
    totals = by_class.evaluate(evaluation, annotations.num_examples, at_50, adjust)
    precision = totals.precision  # thresholds x recalls x classes x areas
    by_area = {
        AREAS[area]: _mean(precision[..., number]) for number, area in enumerate(params.areaRngLbl)
    }
    of_class = {name: precision[:, :, k, 0] for k, name in enumerate(annotations.classes)}
    return {
        "AP50": _mean(precision[at_50, ..., 0]),
        "AP75": _mean(precision[at_75, ..., 0]),
        **by_area,
        "AR": _mean(totals.recall[..., 0]),
        "per_class": {name: _mean(p) for name, p in of_class.items()},
        "per_class_50": {name: _mean(p[at_50]) for name, p in of_class.items()},
        "recall": params.recThrs,
        "precision": precision[[at_50, at_75], :, :, 0],
        "truths": totals.truths,
        "matched": totals.matched,
    }


def _mean(shares):
    """Mean of shares, in percent, without NaN; NaN if all are."""
    return float(100 * np.nanmean(shares)) if np.isfinite(shares).any() else float("nan")


def _silently(function):
    """Calls a function of pycocotools without its prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return function()
