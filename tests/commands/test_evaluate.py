"""From a pre-trained encoder to results: each task, resumed, mirrored, refused."""

import json
import pathlib

import keras
import numpy as np
import pytest
import tiny
from evaluations import SHORT, command, evaluate

from moco_tf import encoders
from moco_tf.evaluation import report, results
from moco_tf.evaluation.classification import Classification


@pytest.mark.slow
def test_every_task_and_their_comparison(pretrained, tmp_path, monkeypatch):
    tasks = {
        "knn": {},
        "linear_cached": {"epochs": 5},
        "linear": {**SHORT, "optimizer__learning_rate": 0.1},
        "finetune": {**SHORT, "head_factor": 10.0},
    }
    before = encoders.load(str(pretrained)).digest
    for task, fields in tasks.items():
        is_reported = task in ("knn", "linear_cached")  # others' reports are like these
        with monkeypatch.context() as patch:
            if not is_reported:
                patch.setattr(Classification, "report", lambda task, record: None)
            record = evaluate(task, pretrained, tmp_path / task, **fields)
        assert json.loads((tmp_path / task / "results.json").read_text()) == record
        assert set(record["metrics"]) == {"top1", "top5", "mean_per_class"}
        assert record["checkpoint"]["sha256"] == before
        assert (record["data"]["train_images"], record["data"]["test_images"]) == (200, 100)
        if is_reported:
            page = (tmp_path / task / "report.html").read_text()
            assert page.count("data:image/png;base64,") >= 5 and "http" not in page
            for title in ("Confusion", "Accuracy of each class", "confident mistakes", "Map of"):
                assert title in page
    knn = json.loads((tmp_path / "knn" / "results.json").read_text())["details"]["knn"]
    assert knn.keys() == {"backbone", "projection"}
    assert knn["backbone"].keys() == {"10", "20", "100", "200"}
    linear = json.loads((tmp_path / "linear" / "results.json").read_text())
    assert linear["details"]["backbone_unchanged"]
    assert "stopped early" in linear["protocol"] and "random crops" in linear["protocol"]
    sweep = json.loads((tmp_path / "linear_cached" / "results.json").read_text())["details"]
    assert len(sweep["sweep"]) == 18

    # The backbone in the classifiers is the pre-trained one, unless it was fine-tuned.
    digest = encoders.digest(encoders.load(str(pretrained)).encoder.backbone)
    for task, same in (("linear", True), ("linear_cached", True), ("finetune", False)):
        network = keras.models.load_model(tmp_path / task / "classifier.keras")
        assert (encoders.digest(network.layers[1]) == digest) == same
        assert network(np.zeros((2, 16, 16, 3), "float32")).shape == (2, 8)

    table = report.compare([str(tmp_path / task) for task in tasks], str(tmp_path / "all"))
    assert table.count("\n") == 5 and "| finetune | finetune | pre-trained |" in table
    assert "data:image/png" in (tmp_path / "all" / "report.html").read_text()


def test_features_are_kept_and_an_untrained_encoder_has_its_own(pretrained, tmp_path, monkeypatch):
    folder = str(tmp_path / "features")
    monkeypatch.setattr(Classification, "report", lambda task, record: None)  # for speed
    first = evaluate("knn", pretrained, tmp_path / "a", data__features_dir=folder)
    files = {p: p.stat().st_mtime_ns for p in pathlib.Path(folder).iterdir()}
    again = evaluate("knn", pretrained, tmp_path / "b", data__features_dir=folder)
    assert again["metrics"] == first["metrics"]
    assert {p: p.stat().st_mtime_ns for p in pathlib.Path(folder).iterdir()} == files
    untrained = evaluate(
        "knn", pretrained, tmp_path / "c", data__features_dir=folder, random_init=True
    )
    assert untrained["checkpoint"]["encoder"] == "untrained"
    assert untrained["checkpoint"]["sha256"] != first["checkpoint"]["sha256"]
    assert len(list(pathlib.Path(folder).iterdir())) == 2 * len(files)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task, fields",
    [
        ("knn", {"rows": 30}),
        ("linear", {**SHORT, "optimizer__learning_rate": 0.1, "rows": 30}),
        (
            "finetune",
            {**SHORT, "bn_group_size": 16, "optimizer__learning_rate": 0.01, "rows": 30},
        ),
    ],
)
def test_two_replicas_find_the_same(task, fields, pretrained, tmp_path, mirrored):
    records = []
    for n in (1, 2):
        folder = str(tmp_path / f"features{n}")
        fields = {**fields, "data__features_dir": folder}
        records.append(evaluate(task, pretrained, tmp_path / f"{task}{n}", mirrored(n), **fields))
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[1]["data"]["test_images"] == 100
    if task != "knn":
        single, mirrored_pair = (tiny.losses(tmp_path / f"{task}{n}") for n in (1, 2))
        np.testing.assert_allclose(single, mirrored_pair, rtol=1e-4)


@pytest.mark.slow
def test_a_killed_evaluation_resumes_to_the_same(pretrained, tmp_path):
    flags = ["--config.batch_size=32", "--config.epochs=4", "--config.log_every_steps=1"]
    flags += ["--config.checkpoint_every_steps=6", "--config.optimizer.learning_rate=0.1"]
    flags += ["--config.optimizer.milestones_epochs=(2,)"]
    outputs = []
    for name in ("whole", "killed"):
        args = command("linear", pretrained, tmp_path / name, f"--workdir={tmp_path / name}")
        if name == "killed":
            tiny.run_to_signal([*args, *flags], "SIGKILL", 9)
            output = tiny.run_to_signal([*args, *flags], "SIGTERM", 15)
            assert "Stopped by SIGTERM after step" in output and "Traceback" not in output
        outputs.append(tiny.run([*args, *flags]))
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "killed")
    whole, killed = (results.read(str(tmp_path / name)) for name in ("whole", "killed"))
    assert whole["metrics"] == killed["metrics"]
    assert "linear (linear on the frozen backbone, random crops, 4 epochs of 32" in outputs[1]
    assert [line["step"] for line in tiny.metrics(tmp_path / "killed")] == list(range(25))


@pytest.mark.parametrize(
    "task, flags, message",
    [
        ("knn", ["--config.backbone=resnet50"], "must be resnet50, as `--config.backbone` says"),
        ("knn", ["--config.neighbours=()"], "`--config.neighbours` must be positive whole numbers"),
        ("knn", ["--config.nope=1"], "There is no flag --config.nope. --help lists"),
        (
            "linear",
            ["--config.batch_size=1000"],
            "one global batch of images. Received: 200",
        ),
        ("linear", ["--config={configs}/knn.py"], "must be one for --task=linear"),
        ("knn", ["--checkpoint=/nope"], "there is no /nope. "),
        ("compare", ["/nope", "/nope"], "needs workdirs of finished evaluations"),
    ],
)
def test_a_users_mistake_ends_in_a_message(task, flags, message, pretrained, tmp_path):
    flags = [flag.format(configs=tiny.ROOT / "configs" / "eval") for flag in flags]
    args = command(task, pretrained, tmp_path / "new", f"--workdir={tmp_path}/new", *flags)
    output = tiny.run(args, code=1)
    assert message in output and "Traceback" not in output
    assert not (tmp_path / "new").exists()


def test_a_rate_that_diverges_is_said_with_the_remedy(pretrained, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Classification, "report", lambda task, record: None)  # for speed
    with pytest.raises(FloatingPointError, match="--task=linear_cached sweeps the rate"):
        evaluate("linear", pretrained, tmp_path / "a", **SHORT, optimizer__learning_rate=1e38)
    record = evaluate("linear", pretrained, tmp_path / "b", **SHORT, optimizer__learning_rate=1e5)
    assert record["details"]["diverged"] and "DIVERGED" in record["protocol"]
    assert "far above chance" in caplog.text and "--task=linear_cached" in caplog.text


def test_a_workdir_of_another_encoder_is_refused(pretrained, tmp_path, monkeypatch):
    monkeypatch.setattr(Classification, "report", lambda task, record: None)  # for speed
    evaluate("knn", pretrained, tmp_path)
    with pytest.raises(ValueError, match="made by another config.*encoder"):
        evaluate("knn", pretrained, tmp_path, random_init=True)
