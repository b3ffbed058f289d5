"""Accuracies and their intervals, against scikit-learn and SciPy."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from moco_tf.evaluation import results
from moco_tf.reports import pages


@pytest.mark.parametrize("num_classes", [4, 9])
def test_accuracies_are_scikit_learns_and_intervals_scipys(num_classes):
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(num_classes), rng.integers(num_classes, size=200)])
    scores = rng.normal(size=(len(labels), num_classes)) + np.eye(num_classes)[labels]
    record = results.measure(scores, labels)
    hits = int(np.sum(scores.argmax(axis=1) == labels))
    assert record["top1"]["value"] == hits / len(labels)
    want = binomtest(hits, len(labels)).proportion_ci(method="wilson")
    np.testing.assert_allclose(record["top1"]["interval"], [want.low, want.high], atol=1e-4)
    balanced = balanced_accuracy_score(labels, scores.argmax(axis=1))
    assert record["mean_per_class"]["value"] == pytest.approx(balanced)
    low, high = record["mean_per_class"]["interval"]
    assert low < balanced < high
    assert ("top5" in record) == (num_classes > 5)
    if num_classes > 5:
        top5 = top_k_accuracy_score(labels, scores, k=5)
        assert record["top5"]["value"] == pytest.approx(top5)


def test_the_interval_of_the_mean_per_class_holds_the_truth_as_often_as_it_says():
    rng, truth, held = np.random.default_rng(0), np.array([0.9, 0.5, 0.2]), 0
    labels = np.repeat([0, 1, 2], [150, 60, 40])
    for _ in range(400):
        right = rng.random(len(labels)) < truth[labels]
        predicted = np.where(right, labels, (labels + 1) % 3)
        low, high = results.measure(np.eye(3)[predicted], labels)["mean_per_class"]["interval"]
        held += low <= truth.mean() <= high
    assert 0.91 < held / 400 < 0.98


def test_ties_go_to_the_first_class_and_nan_is_never_a_hit():
    record = results.measure(np.ones((2, 3)), np.array([0, 1]))
    assert record["top1"]["value"] == 0.5
    assert results.measure(np.full((2, 3), np.nan), np.array([0, 1]))["top1"]["value"] == 0


def test_a_comparison_has_a_line_for_each_and_refuses_what_is_not_finished(tmp_path):
    labels = np.array([0, 1, 1, 0])
    for name, encoder in (("a", "pre-trained"), ("b", "untrained")):
        (tmp_path / name).mkdir()
        record = {"task": "knn", "metrics": results.measure(np.eye(2)[labels], labels)}
        record |= {"checkpoint": {"encoder": encoder}, "data": {"test_images": 4, "test": "here"}}
        record["protocol"] = "k = 1"
        results.write(str(tmp_path / name), record)
        assert json.loads((tmp_path / name / "results.json").read_text()) == record
    table = pages.markdown(*results.compare([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert "| a | knn | pre-trained | 100.0 % (51.0 to 100.0) |" in table
    assert "| b | knn | untrained |" in table
    with pytest.raises(ValueError, match="results.json. Received: .*/c', which has none"):
        results.compare([str(tmp_path / "c")])
