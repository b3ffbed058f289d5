"""What a run says of itself once it has begun: how long it will take, that keys have collapsed."""

import logging
import types

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_fit

from moco_tf.data.batch_layout import BatchLayout
from moco_tf.pretraining import diagnostics, report
from moco_tf.training import callbacks
from moco_tf.training.forecast import Forecast, duration
from moco_tf.training.plan import Plan
from moco_tf.training.round import Round


def test_after_a_few_steps_the_run_forecasts_its_duration(caplog):
    plan = Plan(num_images=4000, steps_per_epoch=15, total=3000, stop=3000, monitor_every=0)
    observer = Forecast(plan, batch=256, start=10)
    assert observer.marks == (11, 14)
    with caplog.at_level(logging.INFO):
        observer.round_end(Round(11, 11, seconds=500.0))  # compiles
        observer.round_end(Round(12, 13, seconds=52.0))
        observer.round_end(Round(14, 14, seconds=26.0))
        observer.round_end(Round(15, 20, seconds=1.0))
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("10 images/s: about 6 min an epoch, 21.6 h for the remaining 2986")


def test_training_forecasts_its_duration(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        tiny_fit.fit(tmp_path, 20, log_every_steps=10, checkpoint_every_steps=100)
    assert caplog.text.count("for the remaining 16 steps") == 1


def test_a_run_that_is_soon_over_forecasts_nothing(caplog):
    plan = Plan(num_images=64, steps_per_epoch=4, total=8, stop=8, monitor_every=0)
    observer = Forecast(plan, batch=16, start=0)
    assert observer.marks == ()
    with caplog.at_level(logging.INFO):
        observer.round_end(Round(1, 4, seconds=9.0))
    assert not caplog.records


@pytest.mark.parametrize("seconds, text", [(3, "3 s"), (1800, "30 min"), (3 * 86_400, "3.0 days")])
def test_durations_are_in_units_that_suit_them(seconds, text):
    assert duration(seconds) == text


def test_a_checkpoint_comes_at_least_every_ten_minutes(monkeypatch):
    now, saved = [1000.0], []
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    checkpoints = types.SimpleNamespace(save=lambda: saved.append(now[0]))
    save = callbacks.Save(checkpoints, every=1000, epoch=10_000)
    for seconds in (300, 301, 300, 301, 599):
        now[0] += seconds
        save.round_end(Round(1, 7))
    assert saved == [1601.0, 2202.0]
    save.round_end(Round(993, 1000))
    assert len(saved) == 3


@pytest.mark.parametrize("rank, warned", [(1, True), (8, False)])
def test_keys_that_stay_in_few_directions_are_warned_of(rank, warned, caplog):
    rng = np.random.default_rng(0)
    keys = rng.normal(size=(60, rank)) @ rng.normal(size=(rank, 64))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    model = types.SimpleNamespace(
        queue=tf.Variable(keys.astype(np.float32)),
        queue_ptr=tf.Variable(0),
        queue_size=60,
        symmetric=False,
    )
    watch = diagnostics.Diagnostics.__new__(diagnostics.Diagnostics)
    watch.model, watch.layout, watch.num_collapsed = model, BatchLayout(20), 0
    for step in range(1, 12):
        watch._watch_collapse(watch.queue_state(step))
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == warned
    if warned:
        assert "effective rank is 1.0 of 64" in warnings[0]
        assert "--config.model.momentum" in warnings[0]


def test_keys_of_the_first_tenth_of_a_run_may_lie_in_few_directions(monkeypatch, caplog):
    model = types.SimpleNamespace(
        has_queue=True, keys_share_batch=False, queue=tf.zeros([4, 64]), filled=lambda *_: 0.5
    )
    watch = diagnostics.Diagnostics(model, tiny.config(log_every_steps=1), BatchLayout(20), 100)
    state = {"queue_fill": 1, "key_effective_rank": 1.0}
    monkeypatch.setattr(watch, "queue_state", lambda step: state)
    for step in range(1, 14):
        watch.measure(Round(step, step, {"loss": np.float32([1.0])}))
    assert "nearly collapsed" not in caplog.text
    watch.measure(Round(14, 14, {"loss": np.float32([1.0])}))
    assert caplog.text.count("nearly collapsed") == 1


def test_a_report_embeds_its_neighbours_in_a_graph():
    # Eagerly, a Keras model holds the outputs of all its layers: 11 GB for ResNet-50 at 224 px.
    sizes = []

    def backbone(x, training):
        assert not tf.executing_eagerly() and not training
        sizes.append(x.shape[0])
        return tf.reduce_mean(x, axis=[1, 2])

    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8)
    recipe = types.SimpleNamespace(normalize=lambda x: x)
    page = report._neighbours(images, recipe, types.SimpleNamespace(backbone=backbone))
    assert page.startswith("<img") and sizes == [None]
