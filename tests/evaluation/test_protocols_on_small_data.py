"""Evaluations on small data: classes, k, chance, milestones, divergence, rates to try."""

import logging
import types

import evaluations
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image

from moco_tf import Encoder
from moco_tf.data import sources
from moco_tf.data.recipes import moco
from moco_tf.evaluation import knn, labelled, linear_cached, results, supervised
from moco_tf.evaluation.classification import Classification
from moco_tf.evaluation.config import Data
from moco_tf.training import plan as plans


def write(root, split, classes, count=2):
    """Noise of its own in each file: `count` images a class."""
    rng = np.random.default_rng(len(split))
    for name in classes:
        for i in range(count):
            path = root / split / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(path)
    return f"folder:{root}/{split}"


def test_a_test_split_of_one_class_is_numbered_as_in_training(tmp_path):
    data = Data(train=write(tmp_path, "train", ["ant", "cat"]), test=write(tmp_path, "t", ["cat"]))
    pair = labelled.open_pair(data, None)
    assert pair.classes == ("ant", "cat") and list(pair.test.labels) == [1, 1]


def test_training_images_of_one_class_are_refused_as_that(tmp_path):
    data = Data(train=write(tmp_path, "train", ["cat"]), test=write(tmp_path, "t", ["cat"]))
    with pytest.raises(ValueError, match="two classes or more.*Received: one class, cat, in"):
        labelled.open_pair(data, None)


@pytest.mark.parametrize("epochs, rates", [(1, None), (3, None), (100, (60, 80))])
@pytest.mark.parametrize("task", ["linear", "finetune"])
def test_milestones_scale_with_the_epochs(task, epochs, rates):
    config = evaluations.make(task, epochs=epochs)  # checked
    schedule = plans.make_schedule(config, 10)
    shares = {"linear": (0.6, 0.8), "finetune": (0.7, 0.9)}[task]
    assert list(schedule.milestones) == [round(share * 10 * epochs) for share in shares]
    base = config.optimizer.learning_rate
    assert float(schedule(tf.constant(0, tf.int64))) == pytest.approx(base)
    assert float(schedule(tf.constant(10 * epochs - 1, tf.int64))) == pytest.approx(base / 100)
    given = evaluations.make(task, epochs=9, optimizer__milestones_epochs=(2,))
    assert list(plans.make_schedule(given, 10).milestones) == [20]


def test_a_run_that_diverged_before_its_rate_fell_is_marked(caplog):
    task = types.SimpleNamespace(
        splits=types.SimpleNamespace(num_classes=3), remedy_for_divergence="Lower it."
    )
    diverged = supervised.Supervised._diverged
    # Two steps an epoch: a loss that starts high is normal, one that rises later is not.
    for losses, expected in (
        ([90, 80, 0.9, 0.8, 0.5], False),
        ([1.1, 60, 900, 70, 0.1, 0.1], True),
        ([50, 50], True),
        ([1.0, 1.1], False),
    ):
        means = supervised.epoch_means(losses, steps_per_epoch=2)
        assert means[0] == np.mean(losses[:2])
        assert diverged(task, means) == expected, losses
    assert "it diverged. Lower it." in caplog.text


def test_a_comparison_shows_divergence_and_chance(tmp_path):
    labels = np.array([0, 1, 1, 1])
    record = {"task": "linear", "metrics": results.measure(np.eye(2)[labels], labels)}
    record |= {"checkpoint": {"encoder": "pre-trained"}, "protocol": "lr 30, DIVERGED"}
    record["data"] = {"test_images": 4, "test": "here", "classes": 2}
    record["data"]["chance"] = results.chance(labels)
    results.write(str(tmp_path), record)
    header, (row,) = results.compare([str(tmp_path)])
    assert row[header.index("chance")] == "75.0 %" and row[-1] == "lr 30, DIVERGED"
    assert "of 2 classes, chance 75.0 %." in results.summary(record)


def test_the_main_k_is_at_most_the_images_a_class(pretrained, tmp_path, caplog):
    # 200 training images of 8 classes
    record = evaluations.evaluate(
        "knn", pretrained, tmp_path / "knn", data__features_dir=str(tmp_path / "features")
    )
    assert record["protocol"].startswith("k = 20, ")
    assert record["metrics"]["top1"]["value"] == record["details"]["knn"]["backbone"]["20"]
    assert "k = 20, not for 200: there are 25 training images a class" in caplog.text
    assert knn.main_k((200, 10), 200) == 200 and knn.main_k((200, 50), 3) == 50


@pytest.mark.parametrize(
    "best, rates, expected",
    [
        ([30], (0.1, 30), [0.1, 30, 100, 300]),
        ([0.1], (30, 0.1), [0.01, 0.03, 0.1, 30]),
        ([1], (0.1, 1, 30), []),
        ([1, 30], (0.1, 1, 30), []),  # as the picture has it: nothing rises toward the end
        ([1], (1,), []),
    ],
)
def test_rates_to_try_are_beyond_the_end_where_the_best_ones_are(best, rates, expected):
    assert linear_cached.more_rates(best, rates) == expected


def test_the_advice_is_a_flag_and_a_tie_is_explained(caplog):
    task = types.SimpleNamespace(config=types.SimpleNamespace(learning_rates=(0.1, 1.0, 3.0)))
    rows = zip((0.1, 1.0, 3.0), (0.80, 0.81, 0.82), strict=True)
    sweep = [{"learning_rate": r, "accuracy": a, "finite": True} for r, a in rows]
    with caplog.at_level(logging.INFO):
        linear_cached.LinearCachedTask._explain(task, sweep, 0.1)
    assert "0.1 is the smallest within one standard error of the best, 3." in caplog.text
    assert "--config.learning_rates=0.1,1,3,10,30" in caplog.text


def test_a_class_that_is_too_small_for_a_sweep_is_named(monkeypatch):
    monkeypatch.setattr(Classification, "prepare", lambda task: None)
    task = linear_cached.LinearCachedTask.__new__(linear_cached.LinearCachedTask)
    task.config = evaluations.make("linear_cached")
    train = types.SimpleNamespace(labels=np.array([0, 0, 1, 2, 2]))
    task.splits = labelled.Labelled(train, None, 3, ("ant", "cat", "dog"), ())
    with pytest.raises(ValueError, match=r"Received: cat with 1 \(1 of 3 classes\)"):
        task.prepare()


def test_an_evaluation_warns_of_an_encoder_that_sees_no_difference(monkeypatch, caplog):
    outputs = types.SimpleNamespace(x=[np.ones((4, 3))], labels=np.arange(4) % 2, ok=np.ones(4) > 0)
    monkeypatch.setattr(Classification, "_cached_outputs", lambda *_: outputs)
    task = linear_cached.LinearCachedTask.__new__(linear_cached.LinearCachedTask)
    task.config = evaluations.make("linear_cached")
    task.strategy = tf.distribute.get_strategy()
    images = keras.Input((None, None, 3))
    encoder = Encoder(keras.Model(images, keras.layers.GlobalAveragePooling2D()(images)))
    task.loaded = types.SimpleNamespace(encoder=encoder, folder="")
    task.crop = types.SimpleNamespace(recipe=moco.v2)
    task.splits = labelled.Labelled(None, None, 2, ("ant", "cat"), ("train", "test"))
    task.encoder_outputs()
    assert caplog.text.count("features of all images are equal") == 1


def test_a_schedule_that_is_zero_from_its_start_is_refused():
    with pytest.raises(ValueError, match=r"first_epoch` must be below the number of epochs, 1"):
        tiny.config(epochs=1, optimizer__first_epoch=1)
    assert tiny.config(epochs=2, optimizer__first_epoch=1)


def test_the_classes_of_a_source_of_one_folder_are_known(tmp_path):
    source = sources.open_source(write(tmp_path, "train", ["cat"]))
    assert source.classes == ("cat",) and list(source.labels) == [0, 0]
