"""A NaN in an image, a weight or a gradient: found at once, and nothing that lasts is changed."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_fit

from moco_tf import SGD
from moco_tf.pretraining import build


def test_sgd_leaves_a_variable_alone_whose_gradient_has_a_nan():
    variable = keras.Variable([1.0, 2.0])
    optimizer = SGD(0.1, momentum=0.9, weight_decay=0.1)
    optimizer.apply([tf.constant([1.0, 1.0])], [variable])
    before = variable.numpy(), optimizer.velocities[0].numpy()
    optimizer.apply([tf.constant([1.0, np.nan])], [variable])
    np.testing.assert_array_equal(variable.numpy(), before[0])
    np.testing.assert_array_equal(optimizer.velocities[0].numpy(), before[1])


def in_image_of(*steps):
    """Plants a NaN in the images of some steps."""

    def plant(model, batch):
        bad = tf.reduce_any(model.optimizer.iterations + 1 == tf.constant(steps, tf.int64))
        name = "x" if "x" in batch else "x_q"
        x = tf.cast(batch[name], tf.float32)
        return batch | {name: tf.where(bad, float("nan"), x)}

    return plant


def test_a_run_stops_at_the_step_and_its_checkpoint_is_good(tmp_path):
    with pytest.raises(FloatingPointError, match=r"loss nan at step 4\b.*a good one, is .*step-3"):
        tiny_fit.fit(tmp_path, plant=in_image_of(4), checkpoint_every_steps=1)
    assert all(np.isfinite(x).all() for x in tiny.saved(tmp_path).values() if x.dtype.kind == "f")


def test_a_run_skips_as_many_as_its_config_says(tmp_path, monkeypatch, caplog):
    plant = in_image_of(2, 4)
    original = build.make_step

    def make_step(model, *rest):
        step = original(model, *rest)
        return lambda batch: step(plant(model, batch))

    monkeypatch.setattr(build, "make_step", make_step)
    tiny.pretrain(tmp_path, log_every_steps=1, stop_after_steps=6, max_skipped_steps=2)
    assert "Step 2 is skipped" in caplog.text and "Step 4 is skipped" in caplog.text
    lines = tiny.metrics(tmp_path)
    assert [x["step"] for x in lines if "loss" in x] == [1, 3, 5, 6]
    assert [x.get("skipped_steps") for x in lines[1:]] == [None, 1, None, 2, None, None]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert all(json.loads(line, parse_constant=pytest.fail) for line in text.splitlines())


def test_a_run_that_must_skip_more_stops(tmp_path):
    with pytest.raises(
        FloatingPointError, match="but for --config.max_skipped_steps=1. .* at step 4"
    ):
        tiny_fit.fit(tmp_path, plant=in_image_of(2, 4), max_skipped=1)


def test_a_weight_that_is_nan_stops_the_run_whatever_may_be_skipped(tmp_path):
    def plant(model, batch):
        weight = model.trainable_variables[0]
        weight.assign(tf.where(model.optimizer.iterations == 2, float("nan"), weight.value))
        return batch

    with pytest.raises(FloatingPointError, match=r"at step 5\b"):
        tiny_fit.fit(tmp_path, plant=plant, max_skipped=2, checkpoint_every_steps=100)
    assert not list(tmp_path.glob("checkpoints/step-*"))
