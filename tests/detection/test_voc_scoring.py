"""VOC's scores on cases worked by hand, and against a slow definition."""

import numpy as np
import pytest

from moco_tf.detection.data.annotations import Annotations
from moco_tf.detection.scoring import voc as voc_scoring


def truths(objects, num_images, classes=("cat",)):
    """Annotations; `objects` are (image, class, difficult, box), sorted by image."""
    image, label, difficult, boxes = (list(column) for column in zip(*objects))
    counts = np.bincount(image, minlength=num_images)
    return Annotations(
        images=tuple(map(str, range(num_images))),
        ids=tuple(map(str, range(num_images))),
        sizes=np.full((num_images, 2), 100, np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=np.array(boxes, np.float32),
        labels=np.array(label, np.int32),
        crowd=np.zeros(len(boxes), bool),
        difficult=np.array(difficult, bool),
        area=np.ones(len(boxes)),
        classes=classes,
        category_ids=np.arange(len(classes)),
    )


def detections(*rows):
    """Predictions of an image; rows are (score, box) or (score, box, label)."""
    return {
        "boxes": np.array([row[1] for row in rows], float).reshape(-1, 4),
        "score": np.array([row[0] for row in rows], float),
        "label": np.array([row[2] if len(row) > 2 else 0 for row in rows], int),
    }


A, B, C = (0, 0, 10, 10), (20, 20, 40, 40), (50, 50, 60, 70)


def test_a_case_worked_by_hand():
    annotations = truths([(0, 0, 0, A), (0, 0, 1, B), (1, 0, 0, C), (1, 0, 0, A)], 2)
    predictions = [
        detections(
            (0.9, A),  # 1st: right
            (0.8, (1, 0, 10, 10)),  # 3rd: A again, wrong
            (0.7, B),  # difficult: not counted
            (0.6, B),  # nor again
        ),
        detections(
            (0.85, (70, 70, 90, 90)),  # 2nd: nothing there, wrong
            (0.5, C),  # 4th: right
            (0.4, (0, 0, 10, 4)),  # 5th: IoU 4/10 with A: wrong
        ),
    ]
    # Three truths. Precision after each: 1, 1/2, 1/3, 2/4, 2/5; recall 1/3, 1/3, 1/3, 2/3, 2/3.
    # At recalls 0 to .3 the highest precision from there on is 1, at .4 to .6 it is 1/2: of eleven,
    # (4 * 1 + 3 * 1/2) / 11 = .5. The area: 1/3 * 1 + 1/3 * 1/2 = .5, too.
    scores = voc_scoring.score(annotations, predictions)
    assert scores["AP50"] == pytest.approx(50)
    area = voc_scoring.score(annotations, predictions, eleven_points=False)
    assert area["AP50"] == pytest.approx(50)
    assert scores["AP75"] == pytest.approx(50) and scores["AP"] == pytest.approx(50)
    assert scores["per_class_50"] == {"cat": pytest.approx(50)}
    assert scores["precision"][0, [0, 33, 34, 66, 67], 0].tolist() == [1, 1, 0.5, 0.5, 0]


@pytest.mark.parametrize("eleven_points, want", [(True, 100 * 6 / 11), (False, 50)])
def test_one_image_missed_entirely(eleven_points, want):
    annotations = truths([(0, 0, 0, A), (1, 0, 0, A)], 2)
    for missed in (detections(), detections((0.9, A, -1))):
        scores = voc_scoring.score(annotations, [detections((0.9, A)), missed], eleven_points)
        # Precision 1 up to recall .5: 6 of the recalls 0, .1, ..., 1, and half of the area.
        assert scores["AP50"] == pytest.approx(want) and scores["AP"] == pytest.approx(want)


def test_eleven_points_and_area_differ():
    precision, recall = np.array([1.0, 0.5, 2 / 3]), np.array([0.25, 0.25, 0.5])
    # 0, .1, .2: 1; .3, .4, .5: 2/3; the rest 0. Area: .25 * 1 + .25 * 2/3.
    eleven = voc_scoring.average_precision_at_11_points(precision, recall)
    assert eleven == pytest.approx((3 + 3 * 2 / 3) / 11)
    area = voc_scoring.area_under_curve(precision, recall)
    assert area == pytest.approx(0.25 + 0.25 * 2 / 3)


def test_both_ends_of_a_box_are_in_it():
    annotations = truths([(0, 0, 0, (0, 0, 10, 10))], 1)
    # In whole pixels the truth is 1..10 x 1..10, the others 1..10 x 1..5 and 1..10 x 1..6: IoU .5
    # and .6, and only the latter is more than .5. Half a pixel more is enough.
    for height, want in ((5, 0), (5.5, 100), (6, 100)):
        scores = voc_scoring.score(annotations, [detections((0.9, (0, 0, 10, height)))])
        assert scores["AP50"] == pytest.approx(want)
    # Without the added pixel, 4.5 of 9.
    scores = voc_scoring.score(annotations, [detections((0.9, (0, 0, 10, 5.04)))])
    assert scores["AP50"] == 0  # rounded to 5.0


def test_a_class_without_truths_is_left_out():
    annotations = truths([(0, 0, 0, A), (0, 1, 1, B)], 1, ("cat", "dog", "bird"))
    scores = voc_scoring.score(annotations, [detections((0.9, A), (0.8, B, 1), (0.8, B, 2))])
    assert scores["AP"] == pytest.approx(100)
    assert np.isnan([scores["per_class"][c] for c in ("dog", "bird")]).all()


def slowly(annotations, predictions, k, threshold):
    """AP by 11 points of one class, detection by detection."""
    rows = [
        (score, image, box)
        for image, p in enumerate(predictions)
        for score, box, label in zip(p["score"], p["boxes"], p["label"])
        if label == k
    ]
    rows.sort(key=lambda row: -row[0])
    taken, hits, misses, curve = set(), 0, 0, []
    of_class = np.flatnonzero((annotations.labels == k) & ~annotations.difficult)
    for _, image, box in rows:
        best, best_iou = None, -1
        for i in range(annotations.offsets[image], annotations.offsets[image + 1]):
            if annotations.labels[i] != k:
                continue
            other = annotations.boxes[i]
            w = min(box[2], other[2]) - max(box[0] + 1, other[0] + 1) + 1
            h = min(box[3], other[3]) - max(box[1] + 1, other[1] + 1) + 1
            shared = max(w, 0) * max(h, 0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            iou = shared / (sum(areas) - shared)
            if iou > best_iou:
                best, best_iou = i, iou
        if best_iou > threshold and annotations.difficult[best]:
            pass
        elif best_iou > threshold and best not in taken:
            taken.add(best)
            hits += 1
        else:
            misses += 1
        curve.append((hits / len(of_class), hits / max(hits + misses, 1)))
    tops = [max([p for r, p in curve if r >= t], default=0) for t in np.arange(0, 1.1, 0.1)]
    return 100 * np.mean(tops)


def test_random_cases_are_as_slow_ones():
    rng = np.random.default_rng(0)
    objects, predictions = [], []
    for image in range(12):
        several = []
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = *rng.integers(0, 50, 2), *rng.integers(8, 40, 2)
            objects.append((image, rng.integers(2), rng.random() < 0.2, (x, y, x + w, y + h)))
            for _ in range(rng.integers(0, 4)):
                box = np.round(objects[-1][3] + rng.normal(0, 2, 4), 1)
                label = objects[-1][1] if rng.random() < 0.8 else rng.integers(-1, 2)
                several.append((round(rng.random(), 3), box, label))
        predictions.append(detections(*several))
    annotations = truths(objects, 12, ("cat", "dog"))
    scores = voc_scoring.score(annotations, predictions)
    thresholds = np.arange(10) * 0.05 + 0.5
    want = [[slowly(annotations, predictions, k, t) for k in (0, 1)] for t in thresholds]
    assert scores["AP50"] == pytest.approx(np.mean(want[0])) and 5 < scores["AP75"] < 95
    assert scores["AP75"] == pytest.approx(np.mean(want[5]))
    assert scores["AP"] == pytest.approx(np.mean(want))
