"""When checkpoints are saved, by a clock of the test's own; what metrics.jsonl may hold."""

import json
import types

import numpy as np
import pytest

from moco_tf.training import callbacks
from moco_tf.training.round import Round


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    return now


def steps_saved(clock, *, steps, step_seconds, epoch, save_seconds):
    """The steps at which a run saves whose rounds are of one step."""
    saved = []

    def write():
        saved.append(step)
        clock[0] += save_seconds

    save = callbacks.Save(types.SimpleNamespace(save=write), every=10**6, epoch=epoch)
    for step in range(1, steps + 1):
        clock[0] += step_seconds
        save.round_end(Round(step, step))
    return saved


def test_a_small_set_saves_at_ends_of_epochs_a_minute_apart(clock):
    """Epochs of 5 s: each twelfth end, where 0.1.0 saved after 600 s at the earliest."""
    saved = steps_saved(clock, steps=60, step_seconds=2.5, epoch=2, save_seconds=0.1)
    assert saved == [24, 48]


def test_an_epoch_longer_than_a_minute_saves_at_its_end(clock):
    assert steps_saved(clock, steps=9, step_seconds=30.0, epoch=3, save_seconds=0.1) == [3, 6, 9]


def test_slow_storage_is_written_less_often(clock):
    """A checkpoint of 10 s: 500 s to the next, so that saving takes 2 % of the time."""
    saved = steps_saved(clock, steps=700, step_seconds=1.0, epoch=10, save_seconds=10.0)
    assert saved == [60, 560]


def test_every_line_of_the_metrics_is_json(tmp_path):
    log = callbacks.MetricsLog(str(tmp_path), steps_per_epoch=2)
    log.start(0)
    losses = np.array([1.5, np.inf, np.nan], np.float32)
    measured = {"knn": float("nan"), "key_norm": 1.0}
    log.round_end(Round(1, 3, logs={"loss": losses}, measured=measured))
    log.end()
    text = (tmp_path / "metrics.jsonl").read_text()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    assert lines == [
        {"step": 1, "epoch": 0.5, "loss": 1.5},
        {"step": 2, "epoch": 1.0},
        {"step": 3, "epoch": 1.5, "key_norm": 1.0},
    ]
