"""NMS of each class in cases of COCO's and LVIS' size, against a plain NumPy one without a cap."""

import numpy as np
import pytest
import tensorflow as tf
from numpy_boxes import float32, random_boxes

from moco_tf.detection.model import box_head


def candidates(classes, objects, rng):
    """A thousand regions around a few objects, and what a box head says of them."""
    truth = random_boxes(rng, objects, side=700.0)
    object_of = rng.integers(0, objects, 1000)
    regions = truth[object_of] + rng.normal(0, 8, (1000, 4))
    regions[:, 2:] = np.maximum(regions[:, 2:], regions[:, :2] + 4)
    logits = rng.normal(0, 2, (objects, classes + 1))[object_of] + rng.normal(
        0, 0.5, (1000, classes + 1)
    )
    deltas = rng.normal(0, 0.4, (1000, classes, 4))
    return float32(logits), float32(deltas), float32(regions)


def all_detections(logits, deltas, regions, side, lowest_score, number):
    """The best detections after an NMS in which all boxes of all classes are candidates."""
    e = np.exp(logits.astype(float) - logits.max(1, keepdims=True))
    score = (e / e.sum(1, keepdims=True))[:, :-1]
    size = (regions[:, 2:] - regions[:, :2]).astype(float)
    center = (regions[:, :2] + regions[:, 2:]).astype(float) / 2
    place = np.argwhere(score > lowest_score)
    place = place[np.argsort(-score[tuple(place.T)], kind="stable")]
    kept = []
    for region, label in place:
        shift, scale = np.split(deltas[region, label] / [10, 10, 5, 5], 2)
        middle, half = center[region] + shift * size[region], size[region] * np.exp(scale) / 2
        box = np.clip([*(middle - half), *(middle + half)], 0, side)
        same = np.array([b for b, other, _ in kept if other == label]).reshape(-1, 4)
        common = np.minimum(same[:, 2:], box[2:]) - np.maximum(same[:, :2], box[:2])
        common = np.maximum(common, 0).prod(1)
        areas = (same[:, 2:] - same[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
        if (common <= 0.5 * (areas - common)).all():
            kept.append((box, label, score[region, label]))
            if len(kept) == number:
                break
    return [np.array(column) for column in zip(*kept, strict=True)], len(place)


@pytest.mark.parametrize(
    "classes, objects, lowest_score, number",
    [
        pytest.param(80, 40, 0.05, 100, id="coco"),
        pytest.param(1230, 12, 1e-4, 300, id="lvis"),
    ],
)
def test_all_boxes_of_all_classes_are_candidates(classes, objects, lowest_score, number):
    """facebookresearch/detectron2, detectron2/modeling/roi_heads/fast_rcnn.py,
    fast_rcnn_inference_single_image: batched_nms of all boxes above score_thresh, then
    topk_per_image. TEST.DETECTIONS_PER_IMAGE, SCORE_THRESH_TEST: 100 and 0.05 of
    detectron2/config/defaults.py; 300 and 0.0001 of configs/LVISv0.5-InstanceSegmentation/
    mask_rcnn_R_50_FPN_1x.yaml.
    """
    case = candidates(classes, objects, np.random.default_rng(0))
    (boxes, label, score), count = all_detections(*case, 900, lowest_score, number)
    assert len(score) == number and count > (3000 if classes == 80 else 200_000)
    logits, deltas, regions = (x[None] for x in case)
    run = tf.function(box_head.detections, autograph=False)
    got = run(
        logits, deltas, regions, tf.ones((1, 1000), tf.bool), [[900, 900]], number, lowest_score
    )
    np.testing.assert_array_equal(got["label"][0], label)
    np.testing.assert_allclose(got["score"][0], score, rtol=1e-4)
    np.testing.assert_allclose(got["boxes"][0], boxes, atol=1e-2)
