"""A NaN in an image, a weight or a gradient: found at once, and nothing that lasts is changed."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from moco_case import SGD_ARGS, Case, distributed, model_state

from moco_tf import SGD, MoCo
from moco_tf.pretraining import build
from moco_tf.pretraining import run as pretraining

CASE = Case(head="mlp")
STRATEGIES = {
    "one": tf.distribute.get_strategy,
    "mirrored": lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
}


@keras.saving.register_keras_serializable("tests")
class Explosive(keras.layers.Layer):
    """Passes its input on; the gradient of one element is infinite while `armed` is 1."""

    def build(self, input_shape):
        self.armed = self.add_weight(name="armed", shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        @tf.custom_gradient
        def pass_on(x):
            def gradient(upstream):
                infinite = tf.scatter_nd([[0, 0]], [float("inf")], tf.shape(x))
                return tf.where(self.armed > 0, infinite, upstream)

            return tf.identity(x), gradient

        return pass_on(x)


def plant_in_image(model, views):
    views = views.copy()
    views[0, -1, 3, 3, 0] = np.nan  # of the last query, on the last replica
    return views, lambda: None


def plant_in_key_image(model, views):
    views = views.copy()
    views[1, 0, 3, 3, 0] = np.nan
    return views, lambda: None


def plant_in_gradient(model, views):
    (layer,) = [x for x in model.encoder_q.layers if isinstance(x, Explosive)]
    layer.armed.assign(1.0)
    return views, lambda: layer.armed.assign(0.0)


def make_model():
    encoder = CASE.encoder()
    encoder = keras.Model(encoder.input, Explosive()(encoder.output))
    model = MoCo(encoder, queue_size=24, momentum=0.9, temperature=0.2)
    model.compile(SGD(**SGD_ARGS))
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.mark.parametrize("plant", (plant_in_image, plant_in_key_image, plant_in_gradient))
@pytest.mark.parametrize("kind", STRATEGIES)
def test_such_a_step_changes_no_weight_and_no_statistic(kind, plant):
    strategy, views = STRATEGIES[kind](), CASE.views()
    with strategy.scope():
        model = make_model()

    @tf.function(autograph=False)
    def step(x_q, x_k):
        return strategy.run(model.step, ((x_q, x_k),))

    def train(pair):
        logs = step(*distributed(strategy, tuple(pair)))
        return [float(x) for x in strategy.experimental_local_results(logs["loss"])]

    assert np.isfinite(train(views[0])).all()
    before = {v.path: v.numpy() for v in model.encoder_q.variables + model.optimizer.variables}
    bad, mend = plant(model, views[1])
    assert np.isnan(train(bad)).any()
    mend()
    for variable in model.encoder_q.variables + model.optimizer.variables:
        if not variable.path.endswith(("iteration", "moving_mean", "moving_variance")):
            np.testing.assert_array_equal(variable.numpy(), before[variable.path], variable.path)
    for name, value in model_state(model).items():
        assert np.isfinite(value).all(), name
    assert np.isfinite(train(views[2])).all()
    for variable in (*model.encoder_q.variables, model.queue):
        replicas = strategy.experimental_local_results(variable.value)
        if "moving_" not in variable.path:  # of each replica's own rows
            np.testing.assert_array_equal(replicas[0], replicas[-1], variable.path)


def test_sgd_leaves_a_variable_alone_whose_gradient_has_a_nan():
    variable = keras.Variable([1.0, 2.0])
    optimizer = SGD(0.1, momentum=0.9, weight_decay=0.1)
    optimizer.apply([tf.constant([1.0, 1.0])], [variable])
    before = variable.numpy(), optimizer.velocities[0].numpy()
    optimizer.apply([tf.constant([1.0, np.nan])], [variable])
    np.testing.assert_array_equal(variable.numpy(), before[0])
    np.testing.assert_array_equal(optimizer.velocities[0].numpy(), before[1])


def run(workdir, monkeypatch, plant, **overrides):
    """A run whose step `plant` is given the number of, and the model, before it."""
    original = build.make_step

    def make_step(model, *rest):
        step = original(model, *rest)

        def planted(batch):
            return step(plant(model, model.optimizer.iterations.value, batch))

        return planted

    monkeypatch.setattr(build, "make_step", make_step)
    flags = {"log_every_steps": 1, "stop_after_steps": 6, "checkpoint_every_steps": 1, **overrides}
    pretraining.pretrain(tiny.config(**flags), str(workdir), tf.distribute.get_strategy())


def in_image_of(*steps):
    def plant(model, done, batch):
        bad = tf.reduce_any(done + 1 == tf.constant(steps, tf.int64))
        x = tf.cast(batch["x_q"], tf.float32)
        return batch | {"x_q": tf.where(bad, float("nan"), x)}

    return plant


def test_a_run_stops_at_the_step_and_its_checkpoint_is_good(tmp_path, monkeypatch):
    with pytest.raises(FloatingPointError, match=r"loss nan at step 4\b.*a good one, is .*step-3"):
        run(tmp_path, monkeypatch, in_image_of(4))
    assert all(np.isfinite(x).all() for x in tiny.saved(tmp_path).values() if x.dtype.kind == "f")


def test_a_run_skips_as_many_as_its_config_says(tmp_path, monkeypatch, caplog):
    plant = in_image_of(2, 4)
    run(tmp_path, monkeypatch, plant, max_skipped_steps=2)
    assert "Step 2 is skipped" in caplog.text and "Step 4 is skipped" in caplog.text
    lines = tiny.metrics(tmp_path)
    assert [x["step"] for x in lines if "loss" in x] == [1, 3, 5, 6]
    assert [x.get("skipped_steps") for x in lines[1:]] == [None, 1, None, 2, None, None]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert all(json.loads(line, parse_constant=pytest.fail) for line in text.splitlines())
    monkeypatch.undo()
    with pytest.raises(FloatingPointError, match="but for max_skipped_steps=1. .* at step 4"):
        run(tmp_path / "less", monkeypatch, plant, max_skipped_steps=1)


def test_a_weight_that_is_nan_stops_the_run_whatever_may_be_skipped(tmp_path, monkeypatch):
    def plant(model, done, batch):
        weight = model.encoder_q.trainable_variables[0]
        weight.assign(tf.where(done == 2, float("nan"), weight.value))
        return batch

    with pytest.raises(FloatingPointError, match=r"at step 5\b"):
        run(tmp_path, monkeypatch, plant, max_skipped_steps=2, checkpoint_every_steps=100)
    assert not list(tmp_path.glob("checkpoints/step-*"))
