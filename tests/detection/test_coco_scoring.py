"""COCO's scores through our annotations, against pycocotools on COCO's own files."""

import contextlib
import io
import json
import math

import detection_sets
import numpy as np
import pytest
from detection_sets import COCO, PERSONS, annotation, perturbed, tiny_coco, truth, write_coco
from pycocotools.coco import COCO as Api
from pycocotools.cocoeval import COCOeval

from moco_tf.detection.data.annotations import open_annotations
from moco_tf.detection.scoring import coco as coco_scoring

MINI = f"coco:{PERSONS}/images,{PERSONS}/annotations/person_keypoints_mini.json"
needs_coco = pytest.mark.skipif(not COCO.exists(), reason="needs tiny_coco beside the project")
SETS = [
    (tiny_coco("val"), "bbox"),
    (tiny_coco("val"), "segm"),
    (tiny_coco("val", "person_keypoints"), "keypoints"),
]


def opened(address, iou_type):
    options = {"masks": iou_type == "segm", "keypoints": iou_type == "keypoints"}
    return open_annotations(address, training=False, **options)


def official(annotations, predictions, iou_type):
    """The figures that pycocotools itself sums up, of the file and of results on disk."""
    results = json.loads(json.dumps(coco_scoring.results(annotations, predictions, iou_type)))
    with contextlib.redirect_stdout(io.StringIO()):
        file = Api(annotations.source)
        evaluation = COCOeval(file, file.loadRes(results), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    names = [n for n in names if iou_type != "keypoints" or n != "APs"]
    return dict(zip(names, 100 * evaluation.stats))


@needs_coco
@pytest.mark.parametrize("address, iou_type", SETS)
def test_scores_are_those_of_cocos_own_file(address, iou_type):
    annotations = opened(address, iou_type)
    predictions = perturbed(annotations)
    scores = coco_scoring.score(annotations, predictions, iou_type)
    want = official(annotations, predictions, iou_type)
    assert 5 < want["AP"] < 95 and want["APm"] != want["APl"]
    for name, value in want.items():
        np.testing.assert_allclose(scores[name], value, atol=1e-6, err_msg=name)
    assert ("APs" in scores) == ("APs" in want)
    per_class = np.array(list(scores["per_class"].values()))
    np.testing.assert_allclose(np.nanmean(per_class), scores["AP"])
    assert list(scores["per_class"]) == list(annotations.classes)
    present = np.bincount(annotations.labels[~annotations.crowd], minlength=len(per_class)) > 0
    if iou_type != "keypoints":
        np.testing.assert_array_equal(np.isfinite(per_class), present)
        assert scores["truths"].sum() == np.sum(~annotations.crowd)
    assert (scores["matched"] <= scores["truths"]).all() and scores["matched"].sum() > 0
    assert scores["precision"].shape == (2, 101, len(per_class))
    np.testing.assert_allclose(100 * np.nanmean(scores["precision"][0]), scores["AP50"])


@needs_coco
@pytest.mark.parametrize("address, iou_type", [*SETS, (MINI, "keypoints")])
def test_the_truth_scores_100(address, iou_type):
    annotations = opened(address, iou_type)
    predictions = truth(annotations)
    if iou_type == "keypoints":  # a person without labelled ones is neither right nor wrong
        for predicted in predictions:
            predicted["score"] = (predicted["keypoints"][..., 2] > 0).mean(axis=1)
    scores = coco_scoring.score(annotations, predictions, iou_type)
    for name in ("AP", "AP50", "AP75", "APm", "APl"):
        np.testing.assert_allclose(scores[name], 100, err_msg=name)
    np.testing.assert_array_equal(scores["truths"], scores["matched"])


def test_what_is_in_a_crowd_is_neither_right_nor_wrong(tmp_path):
    rle = {"size": [80, 100], "counts": [0, 80 * 50, 80 * 50]}
    records = [
        annotation(1, (60, 10, 90, 40)),
        annotation(1, (0, 0, 50, 80), iscrowd=1, segmentation=rle),
    ]
    address = write_coco(tmp_path / "set", [(80, 100)], records)
    annotations = open_annotations(address, training=False, masks=True)
    inside = [[5, 5, 20, 20], [10, 10, 30, 30]]

    def ap(boxes):
        predicted = {"boxes": np.array(boxes, float), "label": np.zeros(len(boxes), int)}
        predicted["score"] = np.linspace(0.9, 0.5, len(boxes))
        return coco_scoring.score(annotations, [predicted], "bbox")["AP50"]

    assert ap([*inside, [60, 10, 90, 40]]) == pytest.approx(100)
    assert ap([[60, 60, 90, 75], [60, 10, 90, 40]]) == pytest.approx(50)  # one that is wrong first
    assert ap(inside) == 0
    padded = {"boxes": np.zeros((3, 4)), "score": np.ones(3), "label": np.full(3, -1)}
    nothing = coco_scoring.score(annotations, [padded], "bbox")
    assert nothing["AP"] == 0 and nothing["matched"].tolist() == [0] and nothing["truths"][0] == 1
    assert nothing["APs"] == 0 and math.isnan(nothing["APm"])  # 900 square px


def test_one_image_missed_entirely_costs_its_share(tmp_path):
    records = [annotation(1, (60, 10, 90, 40)), annotation(2, (60, 10, 90, 40))]
    address = write_coco(tmp_path / "set", [(80, 100)] * 2, records)
    annotations = open_annotations(address, training=False)
    first, second = truth(annotations)
    second = {name: value[:0] for name, value in second.items()}
    scores = coco_scoring.score(annotations, [first, second], "bbox")
    # Precision is 1 up to recall .5: at 51 of the recalls 0, .01, ..., 1.
    assert scores["AP"] == pytest.approx(100 * 51 / 101)
    assert scores["matched"].tolist() == [1, 0] and scores["recall"][50] == 0.5
    assert scores["precision"][0, [50, 51], 0].tolist() == pytest.approx([1, 0])


def test_what_cannot_be_scored_is_said(tmp_path):
    person = {"id": 7, "name": "person", "keypoints": detection_sets.NAMES}
    records = [annotation(1, (60, 10, 90, 40), keypoints=[1] * 9)]
    address = write_coco(tmp_path / "set", [(80, 100)], records, (person,))
    annotations = open_annotations(address, training=False, keypoints=True)
    with pytest.raises(ValueError, match="constant for each keypoint.*Received: nose, left"):
        coco_scoring.score(annotations, truth(annotations), "keypoints")
    with pytest.raises(ValueError, match="open the annotations for testing and with masks"):
        coco_scoring.score(annotations, [{"label": []}], "segm")


def lvis_set(folder):
    """Random objects of six classes; of each image some classes are known, in part or not."""
    rng = np.random.default_rng(0)
    categories = [{"id": i, "name": f"c{i}", "frequency": "rrccff"[i - 1]} for i in range(1, 7)]
    records = []
    for image in range(1, 13):
        for _ in range(6):
            x, y, w, h = rng.integers(0, 60), rng.integers(0, 50), *rng.integers(5, 40, 2)
            box = [int(v) for v in (x, y, x + w, y + h)]
            records.append(annotation(image, box, int(rng.integers(1, 7))))
    address = write_coco(folder, [(100, 110)] * 12, records, categories)
    content = json.loads((folder / "set.json").read_text())
    for image in content["images"]:
        present = {a["category_id"] for a in records if a["image_id"] == image["id"]}
        absent = [i for i in range(1, 7) if i not in present]
        image["neg_category_ids"] = absent[:1]
        image["not_exhaustive_category_ids"] = sorted(present)[:1]
    (folder / "set.json").write_text(json.dumps(content))
    return address.replace("coco:", "lvis:", 1)


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_lvis_scores_are_those_of_its_package(tmp_path, iou_type, monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)  # that the package still asks for
    lvis = pytest.importorskip("lvis")
    annotations = open_annotations(lvis_set(tmp_path / "set"), training=False, masks=True)
    predictions = perturbed(annotations, px=2)
    results = coco_scoring.results(annotations, predictions, iou_type)
    package = lvis.LVISEval(annotations.source, results, iou_type)
    package.run()
    scores = coco_scoring.score_lvis(annotations, predictions, iou_type)
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf")
    want = 100 * np.array([package.get_results()[name] for name in names])
    want[want < 0] = np.nan  # no truth is so large
    assert len(set(want)) > 6
    np.testing.assert_allclose([scores[name] for name in names], want, atol=1e-6)


def test_lvis_knows_of_some_classes_only(tmp_path):
    boxes = [(60, 10, 90, 40), (10, 10, 40, 40)]
    records = [annotation(1, boxes[0], 1), annotation(2, boxes[0], 2), annotation(2, boxes[0], 1)]
    categories = [{"id": i, "name": f"c{i}", "frequency": "rf"[i - 1]} for i in (1, 2)]
    write_coco(tmp_path / "set", [(80, 100)] * 2, records, categories)
    file = tmp_path / "set" / "set.json"

    def scores(negative, incomplete):
        content = json.loads(file.read_text())
        for image, absent, part in zip(content["images"], negative, incomplete):
            image |= {"neg_category_ids": absent, "not_exhaustive_category_ids": part}
        file.write_text(json.dumps(content))
        annotations = open_annotations(f"lvis:{tmp_path}/set,{file}", training=False)
        label = np.array([1, 0, 0])  # c2 where there is none, c1 where there is none, c1
        duplicates = {"boxes": np.array([boxes[0], boxes[1], boxes[0]]), "label": label}
        duplicates["score"] = np.array([0.9, 0.8, 0.7])
        other = {"boxes": np.array([boxes[0]] * 2), "label": np.array([1, 0])}
        other["score"] = np.array([0.5, 0.5])
        scores = coco_scoring.score_lvis(annotations, [duplicates, other], "bbox")
        return [round(scores[name]) for name in ("APr", "APf")]

    assert scores([[], []], [[1], []]) == [100, 100]
    assert scores([[], []], [[], []]) == [67, 100]  # c1: wrong, right, right
    assert scores([[2], []], [[1], []]) == [100, 50]  # c2 is known to be absent
