"""The kNN monitor: what it measures, what it leaves out, when it is off."""

import logging
import types

import pytest
import tensorflow as tf
import tiny
from PIL import Image

from moco_tf.backbones import heads, resnet
from moco_tf.datasets import synthetic
from moco_tf.evaluation import monitors
from moco_tf.recipes import moco


@pytest.fixture(scope="module")
def encoder():
    backbone = resnet.resnet(resnet.basic_block, (1, 1, 1, 1), width=4, stem="cifar")
    return heads.encoder(backbone, heads.linear, 8)


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
        accuracy = knn.evaluate()["knn"]
        knn.evaluate()
    # Each of 14 queries is in the bank itself, but b1.
    assert accuracy >= 13 / 14
    left_out = [r.getMessage() for r in caplog.records if "leaves out" in r.getMessage()]
    assert [m.split(" images")[0] for m in left_out] == ["kNN leaves out 1", "kNN leaves out 2"]


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
    with pytest.raises(ValueError, match="must have classes of its bank. Received besides: c"):
        make(config_of(tmp_path, source="auto"), encoder)
