"""A task from outside the package, found by its import path, runs the journey of all tasks."""

import json
import sys

import multi_label
import numpy as np
import pytest
import tiny
from sklearn.metrics import average_precision_score

from moco_tf.commands import export
from moco_tf.data.sources import synthetic
from moco_tf.evaluation import task as tasks


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Paths of training and test images; the labels: which half of the shapes, and brightness."""
    root = tmp_path_factory.mktemp("multi_label")
    for name, seed in (("train", 0), ("test", 1)):
        images, labels = synthetic.shapes(120, seed=seed)
        bright = images.mean(axis=(1, 2, 3)) > np.median(images.mean(axis=(1, 2, 3)))
        labels = np.stack([labels < 4, bright], axis=1).astype(np.int64)
        np.savez(root / f"{name}.npz", images=images, labels=labels)
    return root


def command(pretrained, data, workdir, *flags):
    return [
        sys.executable,
        str(tiny.ROOT / "evaluate.py"),
        "--task=multi_label:MultiLabel",
        f"--config={tiny.ROOT}/tests/support/multi_label_config.py",
        f"--checkpoint={pretrained}",
        f"--workdir={workdir}",
        f"--config.train={data}/train.npz",
        f"--config.test={data}/test.npz",
        *flags,
    ]


def test_it_runs_by_the_command_and_is_compared_with_others(pretrained, data, tmp_path):
    path = f"{tiny.ROOT}/tests/support"
    output = tiny.run(command(pretrained, data, tmp_path / "a"), PYTHONPATH=path)
    assert "mean AP" in output
    record = json.loads((tmp_path / "a" / "results.json").read_text())
    assert record["task"] == "multi_label:MultiLabel" and record["config"]["strength"] == 10
    labels = np.load(data / "test.npz")["labels"]
    scores = np.load(tmp_path / "a" / "scores.npy")
    want = average_precision_score(labels, scores, average="macro")
    assert record["metrics"]["mean_ap"]["value"] == pytest.approx(want)
    assert want > labels.mean(axis=0).mean() + 0.1  # brightness is easy
    output = tiny.run(
        command(pretrained, data, tmp_path / "a", "--config.strength=2"), code=1, PYTHONPATH=path
    )
    assert "made by another config" in output and "strength" in output


def test_what_it_trained_is_exported_by_itself_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"task": "multi_label:MultiLabel"}')
    with pytest.raises(ValueError, match="trains what can be served.*--task=multi_label"):
        export.export(str(tmp_path), "savedmodel", "served")
    monkeypatch.setattr(
        multi_label.MultiLabel,
        "export",
        classmethod(lambda cls, workdir, output: (workdir, output)),
    )
    assert export.export(str(tmp_path), "savedmodel", "served") == (str(tmp_path), "served")


def test_a_task_that_is_not_there_is_refused_with_those_that_are():
    for name in ("nope", "multi_label:Nope", "no_such_module:Task"):
        with pytest.raises(
            ValueError, match="finetune, knn, linear, linear_cached, neighbours, segm"
        ):
            tasks.find(name)
