"""pycocotools' evaluation a class at a time, on the images that have it: its numbers, less memory.

pycocotools keeps a record of every pair of image and class, most of which have neither objects nor
detections: half a megabyte and ten milliseconds an image of 80 classes.
"""

import collections
import contextlib
import copy
import io
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from pycocotools.cocoeval import COCOeval


class Totals(NamedTuple):
    """Results over all classes, for T thresholds of IoU, R recalls, K classes and A areas.

    Attributes:
        precision: float TxRxKxA for the most detections; NaN without objects.
        recall: float TxKxA; NaN without objects.
        truths: int N, objects of each image.
        matched: int N, those of them that a detection matches at `match_at`.
    """

    precision: np.ndarray
    recall: np.ndarray
    truths: np.ndarray
    matched: np.ndarray


def evaluate(
    evaluation: COCOeval,
    num_images: int,
    match_at: int,
    adjust: Callable[[COCOeval], None] = lambda evaluation: None,
) -> Totals:
    """Evaluates all classes of an evaluation, not yet run.

    Args:
        evaluation: with images numbered from 1 on.
        num_images: N.
        match_at: number of the threshold for `matched`.
        adjust: called for each class between matching and accumulation.
    """
    params = evaluation.params
    categories = np.unique(params.catIds).tolist()
    images_of = collections.defaultdict(set)
    for records in (evaluation.cocoGt.anns, evaluation.cocoDt.anns):
        for record in records.values():
            images_of[record["category_id"]].add(record["image_id"])
    shape = (len(params.iouThrs), len(params.recThrs), len(categories), len(params.areaRng))
    precision = np.full(shape, np.nan)
    recall = np.full((shape[0], *shape[2:]), np.nan)
    truths, matched = np.zeros(num_images, int), np.zeros(num_images, int)
    for k, category in enumerate(categories):
        if category not in images_of:
            continue
        evaluation.params = copy.copy(params)
        evaluation.params.catIds = [category]
        evaluation.params.imgIds = sorted(images_of[category])
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.evaluate()
            adjust(evaluation)
            evaluation.accumulate()
        precision[:, :, k] = evaluation.eval["precision"][:, :, 0, :, -1]
        recall[:, k] = evaluation.eval["recall"][:, 0, :, -1]
        for entry in filter(None, evaluation.evalImgs):
            if entry["aRng"] == params.areaRng[0]:
                number = entry["image_id"] - 1
                is_counted = ~np.asarray(entry["gtIgnore"], bool)
                truths[number] += is_counted.sum()
                matched[number] += np.sum(entry["gtMatches"][match_at][is_counted] > 0)
    evaluation.params, evaluation.evalImgs, evaluation.ious = params, [], {}
    precision[precision < 0] = np.nan
    recall[recall < 0] = np.nan
    return Totals(precision, recall, truths, matched)
