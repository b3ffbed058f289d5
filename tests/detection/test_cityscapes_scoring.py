"""Cityscapes' own score: cases worked by hand, and numbers of its scripts."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as coco_mask

from moco_tf.detection import config
from moco_tf.detection import tester as testing
from moco_tf.detection.data.annotations import open_annotations
from moco_tf.detection.data.cityscapes import THINGS
from moco_tf.detection.scoring import cityscapes as cityscapes_scoring
from moco_tf.detection.scoring import coco as coco_scoring

CLASSES = list(THINGS)  # ids
ROAD, STATIC, PERSON, CAR = 7, 4, 24, 26
NONE = [float("nan")] * 3
GOLDEN = {  # of `random_town`, by its seed
    0: [7.1875, 16.06919643, 8.99350649, 5.00557135, 17.43452381, *NONE, 10.93805962, 23.47062259],
    2: [19.06071429, 1.0, 12.9025974, 37.56613757, 41.77361784, *NONE, 22.46061342, 46.15474762],
}


def write_town(root, images):
    """Writes images of instance ids, as Cityscapes has them; returns the annotations.

    (What the polygons say is not scored: they are one car.)
    """
    for number, ids in enumerate(images):
        name = f"town_{number:06}_000019"
        for folder in ("leftImg8bit", "gtFine"):
            (root / folder / "val" / "town").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", ids.shape[::-1]).save(
            root / "leftImg8bit" / "val" / "town" / f"{name}_leftImg8bit.png"
        )
        fine = root / "gtFine" / "val" / "town" / f"{name}_gtFine_"
        Image.fromarray(ids.astype(np.uint16)).save(f"{fine}instanceIds.png")
        car = {"label": "car", "polygon": [[1, 1], [9, 1], [9, 9], [1, 9]]}
        content = {"imgHeight": ids.shape[0], "imgWidth": ids.shape[1], "objects": [car]}
        with open(f"{fine}polygons.json", "w") as file:
            json.dump(content, file)
    return open_annotations(f"cityscapes:{root}:val", training=False, masks=True)


def random_town(seed, count=4, height=120, width=200):
    """Random ids and predictions near them: lists of uint16 HxW and of (mask, class id, score).

    There are void regions, groups, small instances, duplicates and equal scores.
    """
    rng = np.random.default_rng(seed)
    images, predictions = [], []

    def box(low, high):
        h, w = rng.integers(low, high, 2)
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        return slice(y, y + h), slice(x, x + w)

    for _ in range(count):
        ids = np.full((height, width), ROAD)
        for void in (STATIC, 0, 29, 29_000):
            ids[box(20, 60)] = void
        for k in CLASSES[:5]:
            if rng.random() < 0.5:
                ids[box(6, 60)] = k
            for number in range(rng.integers(1, 5)):
                ids[box(6, 45)] = 1000 * k + number
        predicted = []
        for number in np.unique(ids[ids >= CLASSES[0]]):
            category = int(number) if number < 1000 else int(number) // 1000
            for _ in range(rng.integers(0, 3)):
                shift = rng.integers(-3, 4, 2)
                mask = np.roll(ids == number, shift, (0, 1))
                k = category if rng.random() < 0.8 else int(rng.choice(CLASSES[:7]))
                predicted.append((mask, k, round(rng.random(), 1)))
        for _ in range(6):
            mask = np.zeros((height, width), bool)
            mask[box(8, 50)] = True
            predicted.append((mask, int(rng.choice(CLASSES)), round(rng.random(), 1)))
        images.append(ids)
        predictions.append([p for p in predicted if p[1] in THINGS])
    return images, predictions


def as_predictions(predicted):
    """Predictions of an image in the form of scoring/coco.py, from (mask, class id, score)."""
    return {
        "score": np.array([score for _, _, score in predicted], float),
        "label": np.array([CLASSES.index(k) for _, k, _ in predicted], int),
        "rles": [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask, _, _ in predicted],
    }


@pytest.mark.parametrize("seed", GOLDEN)
def test_scores_are_those_of_cityscapes_scripts(seed, tmp_path):
    """The numbers are AP of each class and AP50 of all, in percent, of cityscapesscripts 2.3.0."""
    images, predictions = random_town(seed)
    annotations = write_town(tmp_path, images)
    scores = cityscapes_scoring.score(annotations, [as_predictions(p) for p in predictions])
    *per_class, ap, ap50 = GOLDEN[seed]
    np.testing.assert_allclose(list(scores["per_class"].values()), per_class, atol=1e-6)
    np.testing.assert_allclose([scores["AP"], scores["AP50"]], [ap, ap50], atol=1e-6)
    assert scores["precision"].shape == (2, 101, 8) and scores["AP75"] < scores["AP50"]
    np.testing.assert_allclose(np.nanmean(list(scores["per_class_50"].values())), scores["AP50"])


def square(top, left, height=20, width=20):
    mask = np.zeros((60, 100), bool)
    mask[top : top + height, left : left + width] = True
    return mask


ONE, OTHER, ELSEWHERE = square(5, 5), square(5, 40), square(35, 5)
WRONG_FIRST = 25  # percent: precision 0 at recall 0, 1/2 at recall 1: the area between is a quarter


@pytest.mark.parametrize(
    "truth, detections, ap50, ap",
    [
        ([(ONE, 26000)], [(ONE, 0.9)], 100, 100),
        ([(ONE, 26000), (OTHER, 26001)], [(ONE, 0.9), (ELSEWHERE, 0.8)], 50, 50),
        ([(ONE, 26000)], [(ELSEWHERE, 0.9), (ONE, 0.8)], WRONG_FIRST, WRONG_FIRST),
        ([(ONE, 26000), (ELSEWHERE, STATIC)], [(ELSEWHERE, 0.9), (ONE, 0.8)], 100, 100),
        ([(ONE, 26000), (ELSEWHERE, CAR)], [(ELSEWHERE, 0.9), (ONE, 0.8)], 100, 100),
        ([(ONE, 26000), (ELSEWHERE, PERSON)], [(ELSEWHERE, 0.9), (ONE, 0.8)], 25, 25),
        # A truth of 81 px, and a part of a group: neither right nor wrong.
        ([(ONE, 26000), (square(35, 5, 9, 9), 26001)], [(square(35, 5, 9, 9), 0.9)], 0, 0),
        ([(ONE, 26000), (ELSEWHERE, CAR)], [(square(35, 5, 8, 20), 0.9), (ONE, 0.8)], 100, 100),
        # Seven tenths of void are too few from a threshold of .7 on, six of the ten.
        (
            [(ONE, 26000), (square(35, 5, 14, 20), STATIC)],
            [(ELSEWHERE, 0.9), (ONE, 0.8)],
            100,
            (4 * 100 + 6 * WRONG_FIRST) / 10,
        ),
        # The second of one truth is wrong: (recall, precision) (1/2, 1), (1/2, 1/2), (1, 2/3).
        (
            [(ONE, 26000), (OTHER, 26001)],
            [(ONE, 0.9), (ONE, 0.8), (OTHER, 0.7)],
            100 * (1 / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2),
            100 * (1 / 2 + 1 / 2 * (1 / 2 + 2 / 3) / 2),
        ),
        # Equal scores are one point of the curve, precision 1/2; at recall 0 it is taken to be 1.
        ([(ONE, 26000)], [(ELSEWHERE, 0.9), (ONE, 0.9)], 75, 75),
        # IoU of 15/20: met below a threshold of .75, five of ten. (.75 itself is not exceeded.)
        ([(ONE, 26000)], [(square(5, 5, 15, 20), 0.9)], 100, 50),
        ([(ONE, 26000)], [], 0, 0),
    ],
)
def test_what_is_right_wrong_and_neither(truth, detections, ap50, ap, tmp_path):
    ids = np.full((60, 100), ROAD)
    for mask, number in truth:
        ids[mask] = number
    annotations = write_town(tmp_path, [ids])
    predicted = as_predictions([(mask, CAR, score) for mask, score in detections])
    got = cityscapes_scoring.score(annotations, [predicted])
    assert got["AP50"] == pytest.approx(ap50) and got["AP"] == pytest.approx(ap)
    assert got["per_class"]["car"] == pytest.approx(ap)
    assert math.isnan(got["per_class"]["person"]) and np.isnan(got["precision"][:, :, 0]).all()
    # Neither an empty mask nor a slot without a detection is one.
    more = as_predictions([(mask, CAR, score) for mask, score in detections])
    more["score"] = np.append(more["score"], [1, 1])
    more["label"] = np.append(more["label"], [CLASSES.index(CAR), -1])
    more["rles"] += as_predictions([(square(0, 0, 0, 0), CAR, 1), (ELSEWHERE, CAR, 1)])["rles"]
    assert cityscapes_scoring.score(annotations, [more])["AP"] == got["AP"]


def test_an_unusable_truth_is_named(tmp_path):
    annotations = write_town(tmp_path, [np.full((60, 100), ROAD)] * 2)
    predictions = [as_predictions([(ONE, CAR, 0.9)])] * 2
    assert math.isnan(cityscapes_scoring.score(annotations, predictions)["AP"])
    file = tmp_path / "gtFine/val/town/town_000001_000019_gtFine_instanceIds.png"
    Image.new("I;16", (40, 30)).save(file)
    with pytest.raises(ValueError, match=r"000001_.*must have the \(60, 100\) px.*\(30, 40\)"):
        cityscapes_scoring.score(annotations, predictions)
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(ValueError, match="cannot be decoded.*Download gtFine again"):
        cityscapes_scoring.score(annotations, predictions)
    file.unlink()
    with pytest.raises(ValueError, match=r"Missing: .*instanceIds.png \(1 of 2\)"):
        cityscapes_scoring.require_truth(annotations)


def test_a_run_scores_masks_so_and_boxes_as_coco(tmp_path, monkeypatch):
    given = config.Detection(masks=True, metric="cityscapes")
    images, predictions = random_town(0)
    annotations = write_town(tmp_path, images)
    predictions = [as_predictions(p) for p in predictions]
    for predicted in predictions:
        x, y, w, h = coco_mask.toBbox(predicted["rles"]).T
        predicted["boxes"] = np.stack([x, y, x + w, y + h], axis=1)
    tester = testing.Tester(given, None, tf.distribute.get_strategy(), annotations, (0, 0, 0))
    monkeypatch.setattr(tester, "predictions", lambda title: predictions)
    scores = tester.score()[1]
    assert scores.keys() == {"box", "mask"}
    assert scores["mask"]["AP"] == cityscapes_scoring.score(annotations, predictions)["AP"]
    assert scores["box"]["AP"] == coco_scoring.score(annotations, predictions, "bbox")["AP"]
    given.masks, given.data.train, given.data.test = False, "cityscapes:a:b", "cityscapes:a:b"
    with pytest.raises(ValueError, match="`--config.masks` must be true with metric=cityscapes"):
        config.check(given)
