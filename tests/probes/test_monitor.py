"""The kNN monitor: what it measures, what it leaves out, when it is off."""

import logging
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image

from moco_tf import SGD, MoCo
from moco_tf.backbones import heads, resnet
from moco_tf.backbones.encoder import Encoder
from moco_tf.data import sources
from moco_tf.data.recipes import moco
from moco_tf.data.sources import synthetic
from moco_tf.evaluation import config as configs
from moco_tf.evaluation.knn import KnnTask
from moco_tf.evaluation.task import evaluate
from moco_tf.pretraining import report
from moco_tf.probes import features, knn
from moco_tf.probes import monitor as monitors


@pytest.fixture(scope="module")
def encoder():
    backbone = resnet.ResNet("basic", (1, 1), width=4, stem="cifar")
    return Encoder(backbone, heads.linear(8))


def make(config, encoder):
    model = types.SimpleNamespace(encoder_q=encoder)
    plan = types.SimpleNamespace(monitor_every=1, stop=1)
    return monitors.make_scores(config, model, moco.v1, tf.distribute.get_strategy(), plan)


def write(root, split, classes, bad=()):
    """Eight images a class, the same in every split."""
    images, _ = synthetic.shapes(24, seed=0)
    for number, name in enumerate("abc"):
        for i in range(8):
            path = root / split / (name if classes else "") / f"{name}{i}.png"
            if not classes or name in classes:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[8 * number + i]).save(path)
                if path.stem in bad:
                    path.write_bytes(path.read_bytes()[:60])


def config_of(root, **monitor):
    fields = {f"monitor__{name}": value for name, value in monitor.items()}
    source = f"folder:{root}/train"
    return tiny.config(data__source=source, monitor__resize_px=16, **fields)


def test_queries_of_some_classes_are_labelled_as_in_the_bank_and_bad_images_left_out(
    encoder, tmp_path, caplog
):
    write(tmp_path, "train", "abc", bad=["b1"])
    write(tmp_path, "val", "bc", bad=["c0", "c7"])
    knn = make(config_of(tmp_path, source="auto", neighbours=1), encoder)
    with caplog.at_level(logging.WARNING):
        accuracy = knn()["knn"]
        knn()
    # Each of 14 queries is in the bank itself, but b1.
    assert accuracy >= 13 / 14
    skipped = [r.getMessage() for r in caplog.records if "skipped" in r.getMessage()]
    assert [m.split(" images")[0] for m in skipped] == ["1", "2"]


def test_it_is_off_and_says_so_where_a_split_has_no_labels(encoder, tmp_path, caplog):
    write(tmp_path, "train", "abc")
    write(tmp_path, "val", "")
    with caplog.at_level(logging.INFO):
        assert make(config_of(tmp_path, source="auto"), encoder) is None
    assert "The kNN monitor is off" in caplog.text and f"folder:{tmp_path}/val" in caplog.text
    named = f"folder:{tmp_path}/train,folder:{tmp_path}/val"
    with pytest.raises(ValueError, match="labelled images with random access"):
        make(config_of(tmp_path, source=named), encoder)


def test_classes_that_the_bank_lacks_are_refused(encoder, tmp_path):
    write(tmp_path, "train", "ab")
    write(tmp_path, "val", "bc")
    with pytest.raises(
        ValueError, match="only classes of the training images. Received: c, without"
    ):
        make(config_of(tmp_path, source="auto"), encoder)


def test_a_monitor_of_fit_measures_and_never_touches_the_encoder(monkeypatch):
    build, pipelines = features.evaluation_dataset, []
    monkeypatch.setattr(
        features,
        "evaluation_dataset",
        lambda source, **options: pipelines.append(source) or build(source, **options),
    )
    images, labels = synthetic.shapes(96, seed=0)
    views = [images.astype(np.float32) / 255, images[:, ::-1].astype(np.float32) / 255]
    data = tf.data.Dataset.from_tensor_slices(tuple(views)).batch(32, drop_remainder=True)

    def fit(callbacks):
        tf.keras.utils.set_random_seed(1)
        backbone = resnet.ResNet("basic", (1, 1), width=4, stem="cifar")
        model = MoCo(Encoder(backbone, heads.linear(8)), queue_size=64)
        model.compile(SGD(0.03))
        history = model.fit(data, epochs=2, verbose=0, callbacks=callbacks)
        return model.encoder_q.get_weights(), history.history

    monitor = monitors.Monitor(
        bank=sources.from_arrays(images[:64], labels[:64]),
        queries=sources.from_arrays(images[64:], labels[64:]),
        recipe=moco.v1,
        image_size_px=32,
        resize_px=32,
        linear=True,
    )
    alone, _ = fit([])
    watched, history = fit([monitor])
    for a, b in zip(alone, watched):
        np.testing.assert_array_equal(a, b)
    assert len(history["knn"]) == len(history["linear"]) == 2
    assert len(pipelines) == 2  # of the bank and of the queries, for all measurements
    assert all(0 <= score <= 1 for score in history["knn"] + history["linear"])
    # The trained features tell what they were computed from: the bank itself as queries.
    monitor.probe.extract["queries"] = monitor.probe.extract["bank"]
    monitor.probe.neighbours = 1
    assert monitor.probe()["knn"] == 1.0


def recorded(monkeypatch, observe):
    """Makes each search for neighbors note what `observe` finds in its arguments: a list."""
    observed, nearest = [], knn.nearest

    def search(bank, queries, *args, **options):
        observed.append(observe(bank, queries))
        return nearest(bank, queries, *args, **options)

    monkeypatch.setattr(knn, "nearest", search)
    return observed


def test_all_replicas_measure_with_the_statistics_that_are_saved(mirrored, tmp_path, monkeypatch):
    strategy = mirrored(3)
    images, labels = synthetic.shapes(24, seed=0)
    source = sources.from_arrays(images, labels)
    crop = {"image_size_px": 32, "resize_px": 32}
    with strategy.scope():
        model = Encoder(resnet.ResNet("basic", (1,), width=4, stem="cifar"), heads.linear(8))

    def train(x):
        model(x, training=True)

    rows = tf.data.Dataset.from_tensors(images[:3] / np.float32(64) - 2).unbatch().batch(3)
    tf.function(strategy.run)(train, (next(iter(strategy.experimental_distribute_dataset(rows))),))
    variables = model.non_trainable_variables

    def values():
        local = [strategy.experimental_local_results(v.value) for v in variables]
        return [[value.numpy() for value in of_replicas] for of_replicas in local]

    before = values()
    assert not any(np.array_equal(first, last) for first, _, last in before)
    model.save(tmp_path / "encoder.keras")
    observed = recorded(monkeypatch, lambda bank, queries: bank)
    monitors.Probe(model, source, source, moco.v1, strategy=strategy, **crop)()
    for old, new in zip(before, values(), strict=True):
        for value in new:
            np.testing.assert_array_equal(value, old[0])
    saved = keras.models.load_model(tmp_path / "encoder.keras")
    monitors.Probe(saved, source, source, moco.v1, **crop)()
    np.testing.assert_allclose(observed[0], observed[1], atol=1e-5)
    assert np.abs(observed[0]).max() > 0.1


def test_monitor_and_evaluation_measure_without_tf32(encoder, tmp_path, monkeypatch):
    is_on = tf.config.experimental.tensor_float_32_execution_enabled
    observed = recorded(monkeypatch, lambda bank, queries: is_on())
    assert is_on()
    root = tiny.shapes_folder(tmp_path / "data", 60)
    make(config_of(root, source=f"folder:{root}/train,folder:{root}/test"), encoder)()
    assert observed == [False] and is_on()
    encoder.save(tmp_path / "encoder.keras")
    monkeypatch.setattr(KnnTask, "report", lambda task, record: None)  # for speed
    data = configs.Data(train=f"folder:{root}/train", test=f"folder:{root}/test", image_size_px=16)
    evaluate(
        "knn",
        configs.Knn(data=data),
        str(tmp_path / "encoder.keras"),
        str(tmp_path / "knn"),
        tf.distribute.get_strategy(),
    )
    assert observed == [False] * 3 and is_on()


def test_chance_and_classes_stand_beside_the_score_and_a_large_k_is_warned_of(
    encoder, tmp_path, caplog
):
    write(tmp_path, "train", "abc")
    write(tmp_path, "val", "ab")
    with caplog.at_level(logging.INFO):
        scores = make(config_of(tmp_path, source="auto", neighbours=9), encoder)()
    assert scores["knn_chance"] == 0.5 and scores["knn_classes"] == 3
    assert "24 images of 3 classes classify 16 others; chance is 50.0 %" in caplog.text
    assert "Set --config.monitor.neighbours=8 or less" in caplog.text
    lines = [{"step": 0, "knn": 0.4}, {"step": 8, "knn": 0.9, **scores, "loss": 1.0}]
    headline = "kNN accuracy 90.0% at step 8; the same encoder untrained 40.0% "
    lines[1]["knn"] = 0.9
    assert report._headline(lines) == headline + "(3 classes, chance 50.0%)."


def test_a_bank_of_one_class_is_no_bank(encoder, tmp_path, caplog):
    write(tmp_path, "train", "a")
    write(tmp_path, "val", "a")
    with caplog.at_level(logging.INFO):
        assert make(config_of(tmp_path, source="auto"), encoder) is None
    assert "two classes or more" in caplog.text
