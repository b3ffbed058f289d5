"""Keypoints of any skeleton: counterparts by name or given, OKS with sigmas, PCK without."""

import contextlib
import io

import numpy as np
import pytest
from detection_sets import annotation, perturbed, truth, write_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval, Params

from moco_tf.data.findings import NOTE, WARNING
from moco_tf.detection.data import problems, skeletons
from moco_tf.detection.data.annotations import examine, open_annotations
from moco_tf.detection.scoring import coco as coco_scoring
from moco_tf.detection.scoring import pck

HAND = [f"finger_{i}" for i in range(21)]
DOG = ["nose", "Left Ear", "Right Ear", "LPaw", "RPaw"]


def skeleton_set(folder, names, objects=4, seed=0):
    """Objects with random keypoints within their boxes, two an image of 90 x 100 px."""
    rng, records = np.random.default_rng(seed), []
    for number in range(objects):
        x, y = rng.integers(2, 40), rng.integers(2, 30)
        box = (int(x), int(y), int(x) + 50, int(y) + 55)
        points = np.empty((len(names), 3))
        points[:, :2] = rng.integers([x, y], [x + 50, y + 55], (len(names), 2))
        points[:, 2] = rng.integers(0, 3, len(names))
        points[0, 2] = 2
        points = points.ravel().tolist()
        records.append(annotation(1 + number // 2, box, keypoints=points))
    category = {"id": 7, "name": "thing", "keypoints": names}
    return write_coco(folder, [(90, 100)] * (objects // 2), records, (category,))


@pytest.mark.parametrize(
    "names, pairs",
    [
        (skeletons.COCO_NAMES, [(i, i + 1) for i in range(1, 17, 2)]),
        (DOG, [(1, 2), (3, 4)]),
        (["l_hip", "R-Hip", "ankle.r", "ankle.l", "tail"], [(0, 1), (2, 3)]),
        (["leftHip", "rightHip", "lknee", "rknee", "lip"], [(0, 1), (2, 3)]),
        (HAND, []),
    ],
)
def test_counterparts_go_by_name(names, pairs):
    want = np.arange(len(names))
    for i, j in pairs:
        want[[i, j]] = j, i
    np.testing.assert_array_equal(skeletons.twins(names), want)


def test_given_pairs_come_first():
    twin = skeletons.twins(["a", "b", "left_c", "right_c"], ["a:b"])
    assert twin.tolist() == [1, 0, 3, 2]
    for pairs in (["a:x"], ["a"], ["a:a"], ["a:b", "b:left_c"]):
        with pytest.raises(ValueError, match="`--config.data.keypoint_pairs` must"):
            skeletons.twins(["a", "b", "left_c"], pairs)


def test_the_constants_are_cocos_for_its_names_in_any_spelling():
    spelled = [name.replace("_", " ").title() for name in skeletons.COCO_NAMES]
    for names in (skeletons.COCO_NAMES, spelled):
        np.testing.assert_allclose(skeletons.sigmas_of(names), Params("keypoints").kpt_oks_sigmas)
    assert skeletons.sigmas_of(skeletons.COCO_NAMES[::-1]) is None
    with pytest.raises(ValueError, match="must be 5 numbers, one for each of nose, Left Ear"):
        skeletons.sigmas_of(DOG, (0.1, 0.2))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"keypoint_sigmas": (0.1,)}, "keypoint_sigmas` must be 5 numbers"),
        ({"keypoint_pairs": ("nose:tail",)}, "keypoint_pairs` must be pairs NAME:NAME"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_trained(tmp_path, options, message):
    address = skeleton_set(tmp_path / "a", DOG)
    with pytest.raises(ValueError, match=message):
        open_annotations(address, training=True, keypoints=True, **options)


def test_keypoints_without_counterpart_are_listed(tmp_path):
    address = skeleton_set(tmp_path / "a", ["left_eye", "right_eye", "left_ear"])
    findings = examine(address, training=True, keypoints=True).findings
    assert findings.kinds(WARNING) == [problems.NO_TWIN]
    assert findings.shown(problems.NO_TWIN)[0].value == "left_ear"
    findings = examine(skeleton_set(tmp_path / "b", HAND), training=True, keypoints=True).findings
    assert {problems.UNPAIRED, problems.NO_SIGMAS} <= set(findings.kinds(NOTE))
    assert not findings.kinds(WARNING)


def test_keypoints_outside_their_boxes_and_odd_visibilities_are_counted(tmp_path):
    category = {"id": 7, "name": "thing", "keypoints": ["a", "b"]}
    records = [
        annotation(1, (10, 10, 30, 30), keypoints=[60, 60, 2, 70, 70, 2]),
        annotation(1, (10, 10, 40, 30), keypoints=[12, 12, 2, 13, 13, 5]),
    ]
    address = write_coco(tmp_path / "a", [(90, 100)], records, (category,))
    findings = examine(address, training=True, keypoints=True).findings
    assert findings.count(problems.KEYPOINTS_OUTSIDE) == 1
    assert findings.count(problems.VISIBILITY) == 1


@pytest.mark.parametrize(
    "names, sigmas", [(DOG, (0.1, 0.05, 0.05, 0.2, 0.2)), (HAND, (0.07,) * 21)]
)
def test_oks_with_given_sigmas_is_pycocotools(tmp_path, names, sigmas):
    address = skeleton_set(tmp_path / "a", names, objects=8)
    annotations = open_annotations(address, training=False, keypoints=True, keypoint_sigmas=sigmas)
    predictions = perturbed(annotations, px=3.0)
    scores = coco_scoring.score(annotations, predictions, "keypoints")
    with contextlib.redirect_stdout(io.StringIO()):
        file = COCO(annotations.source)
        for record in file.dataset["annotations"]:
            record["num_keypoints"] = sum(v > 0 for v in record["keypoints"][2::3])
        file.createIndex()
        results = coco_scoring.results(annotations, predictions, "keypoints")
        evaluation = COCOeval(file, file.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 5 < scores["AP"] < 95
    np.testing.assert_allclose(scores["AP"], 100 * evaluation.stats[0])
    np.testing.assert_allclose(scores["AP50"], 100 * evaluation.stats[1])


def test_pck_is_the_share_of_near_keypoints(tmp_path):
    """By a loop over objects and keypoints."""
    address = skeleton_set(tmp_path / "a", DOG, objects=8)
    annotations = open_annotations(address, training=False, keypoints=True)
    assert annotations.sigmas is None
    predictions = truth(annotations)
    rng = np.random.default_rng(0)
    distances = []
    for predicted, start in zip(predictions, annotations.offsets[:-1], strict=True):
        for i in range(2):
            moves = rng.normal(0, 4, (5, 2))
            predicted["keypoints"][i, :, :2] += moves
            for j in np.flatnonzero(annotations.keypoints[start + i, :, 2]):
                x1, y1, x2, y2 = annotations.boxes[start + i]
                distances.append(np.hypot(*moves[j]) / max(x2 - x1, y2 - y1))
    # The first object is not detected: its keypoints are wrong.
    first = int(np.sum(annotations.keypoints[0, :, 2] > 0))
    distances = [np.inf] * first + distances[first:]
    predictions[0] = {name: column[1:] for name, column in predictions[0].items()}
    predictions[1]["label"] = predictions[1]["label"] + 0
    scores = pck.score(annotations, predictions)
    for name, share in (("PCK05", 0.05), ("PCK10", 0.1), ("PCK20", 0.2)):
        np.testing.assert_allclose(scores[name], 100 * np.mean(np.array(distances) <= share))
    assert 0 < scores["PCK05"] < scores["PCK10"] < scores["PCK20"] < 100
    assert list(scores["per_keypoint"]) == DOG
    np.testing.assert_allclose(scores["median"], 100 * np.median(distances[first:]))
    nothing = [{n: c[:0] for n, c in predicted.items()} for predicted in predictions]
    assert pck.score(annotations, nothing)["PCK20"] == 0
