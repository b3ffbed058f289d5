"""Sizes that are chosen for images of one's own: by number, image size, machine and minutes."""

import numpy as np
import pytest
import tensorflow as tf

from moco_tf import presets, schema
from moco_tf.backbones import precision
from moco_tf.commands import train
from moco_tf.data.sources import from_arrays
from moco_tf.pretraining import config as configs
from moco_tf.pretraining import own_images, trial

GB = 1e9


def chosen(images=4000, short_px=500, minutes=20, given=None, device="CPU", **measured):
    """The config after all choices, and the last reason of each."""
    config = presets.load("own_images")
    for name, value in (given or {}).items():
        schema.override(config, name, value)
    names = set(given or ())
    facts = own_images.Facts(images, short_px, per_class=images // 10, device=device)
    choices = own_images._apply(config, names, own_images.before_trial(facts, config, names))
    measured = {
        "image_size_px": config.data.image_size_px,
        "image_seconds": 0.004,
        "row_bytes": 1e7,
        "fixed_bytes": 1e8,
        "available": 16 * GB,
        **measured,
    }
    after = own_images.after_trial(facts, config, names, trial.Trial(**measured), minutes)
    choices += own_images._apply(config, names, after)
    configs.check(config)
    return config, {choice.field: choice.reason for choice in choices}


@pytest.mark.parametrize("images", [10, 16, 100, 204, 333, 1000, 8000, 50_000, 10**7])
def test_any_number_of_images_gives_a_config_that_can_be_run(images):
    config, _ = chosen(images)
    batch, queue = config.batch_size, config.model.queue_size
    assert batch <= max(images / 4, 8) and batch % config.model.bn_group_size == 0
    assert config.model.bn_group_size < batch
    assert queue % batch == 0 and queue <= max(images / 2, batch)


def test_time_goes_into_epochs_and_then_into_larger_images():
    """At 4 ms and 15 % more, 192 of 204 images by 32: 604 epochs of 48 px, 339 of 64 px."""
    many, reasons = chosen(4000)
    assert (many.data.image_size_px, many.epochs) == (32, int(1200 / (4000 // 128 * 128 * 0.0046)))
    assert reasons["epochs"].startswith("20 minutes at 250 images/s of 32 px")
    few, _ = chosen(204)  # 100,000 pairs are 521 epochs
    seconds = 6 * 32 * 0.0046 * (48 / 32) ** 2
    assert (few.data.image_size_px, few.epochs) == (48, int(1200 / seconds))
    assert chosen(4000, minutes=400)[0].data.image_size_px == 64  # 200 epochs are 315 minutes
    assert chosen(204, minutes=200)[0].data.image_size_px == 160
    assert chosen(204, minutes=200, short_px=100)[0].data.image_size_px == 96
    assert chosen(204, minutes=200, short_px=20)[0].data.image_size_px == 32
    assert chosen(204, minutes=10_000)[0].epochs == own_images.MOST_EPOCHS
    assert chosen(10**6, minutes=1)[0].epochs == 1


@pytest.mark.parametrize("minutes, most", [(1, 2), (3, 6), (20, 10)])
def test_measurements_leave_a_short_run_its_time(minutes, most):
    config, _ = chosen(4000, minutes=minutes)
    assert most // 2 <= config.epochs // config.monitor.every_epochs <= most


def test_what_memory_does_not_hold_is_made_smaller():
    config, reasons = chosen(4000, available=1.5 * GB)  # 95 rows of 10 MB
    assert (config.batch_size, config.model.queue_size % 64) == (64, 0)
    assert "fits into 1.0 GB" in reasons["batch_size"]
    few, _ = chosen(204, minutes=200, available=1.5 * GB)  # 32 rows: up to 55 px
    assert few.data.image_size_px == 48
    assert chosen(204, minutes=200, available=None)[0].data.image_size_px == 160


def test_what_the_user_gives_stays():
    given = {"batch_size": 32, "epochs": 3, "data.image_size_px": 48, "model.momentum": 0.9}
    config, reasons = chosen(given=given)
    assert {name: getattr(config, name) for name in ("batch_size", "epochs")} == {
        "batch_size": 32,
        "epochs": 3,
    }
    assert (config.data.image_size_px, config.model.momentum) == (48, 0.9)
    assert not set(given) & set(reasons)
    assert config.model.queue_size % 32 == 0
    assert chosen(given={"batch_size": 20})[0].model.bn_group_size == 5


def tried_by(run, monkeypatch, has_amx):
    """A config for 300 images, whose trials are answered by `run`."""
    monkeypatch.setattr(trial, "run", run)
    monkeypatch.setattr(precision, "has_amx", lambda: has_amx)
    images = np.random.default_rng(0).integers(0, 256, (300, 70, 90, 3), np.uint8)
    source = from_arrays(images, np.arange(300) % 3)
    monkeypatch.setattr(own_images.sources, "open_source", lambda *_, **__: source)
    return presets.load("own_images")


@pytest.mark.parametrize(
    "has_amx, bfloat16_seconds, is_chosen",
    [(True, 0.002, True), (True, 0.0039, False), (False, 0.002, False)],
)
def test_bfloat16_is_chosen_where_this_cpu_is_faster_in_it(
    monkeypatch, caplog, has_amx, bfloat16_seconds, is_chosen
):
    caplog.set_level("INFO", "moco_tf")

    def run(config, source, strategy):
        seconds = bfloat16_seconds if config.mixed_bfloat16 else 0.004
        return trial.Trial(64, seconds, 1e7, 1e8, None)

    config = tried_by(run, monkeypatch, has_amx)
    own_images.choose(config, set(), 2, tf.distribute.get_strategy())
    assert config.mixed_bfloat16 == is_chosen
    assert ("2.00 times as fast" in caplog.text) == is_chosen
    assert f"minutes at {500 if is_chosen else 250} images/s" in caplog.text
    config = tried_by(run, monkeypatch, has_amx)
    own_images.choose(config, {"mixed_bfloat16"}, 2, tf.distribute.get_strategy())
    assert not config.mixed_bfloat16


def test_a_gpu_that_is_too_small_gets_half_the_batch(monkeypatch, caplog):
    caplog.set_level("INFO", "moco_tf")
    tried = []

    def run(config, source, strategy):
        tried.append(config.batch_size)
        if config.batch_size > 16:
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
        return trial.Trial(64, 0.004, 1e7, 1e8, None)

    config = tried_by(run, monkeypatch, has_amx=False)
    own_images.choose(config, set(), 20, tf.distribute.get_strategy())
    assert tried == [64, 32, 16] and config.batch_size == 16
    configs.check(config)
    assert (config.data.image_size_px, config.monitor.neighbours) == (64, 90)
    advice = "fewer than 50000 images a trained encoder is the better start"
    assert advice in caplog.text
    caplog.clear()
    own_images.choose(config, set(), 20, tf.distribute.get_strategy(), init="runs/other")
    assert "Chosen for 300 images" in caplog.text and advice not in caplog.text


@pytest.mark.parametrize(
    "argv, want",
    [
        (
            ["photos/"],
            "--config=own_images --config.data.source=folder:photos/ --minutes=20 "
            "--workdir=runs/photos",
        ),
        (
            ["--workdir", "runs/x", "tfrecord:a/*", "--minutes=3"],
            "--config=own_images --workdir runs/x --minutes=3 --config.data.source=tfrecord:a/*",
        ),
        (
            ["--config=moco_v2", "folder:a/b"],
            "--config=moco_v2 --config.data.source=folder:a/b --workdir=runs/b",
        ),
        (["--config=quickstart", "--workdir=x"], "--config=quickstart --workdir=x"),
    ],
)
def test_a_folder_stands_for_flags(argv, want):
    assert train.with_address(["train", *argv]) == ["train", *want.split(" ")]
