"""A run says what its parts find: each warning is tested beside its part, here that it is asked."""

import logging
import types

import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image

from moco_tf import strategies
from moco_tf.backbones import resnet
from moco_tf.pretraining import build, command_record, memory, report, run
from moco_tf.training.metrics_file import Curves
from moco_tf.training.round import Round

DIM = 8


@pytest.fixture
def started(tmp_path, monkeypatch, caplog):
    """Function from fields of the config to what a run hands to the training loop."""
    handed = types.SimpleNamespace()

    def fit(model, *_, **options):
        handed.__dict__.update(options, model=model)
        return 0

    def backbone(_):
        return resnet.ResNet("basic", (1,), width=4, stem="cifar")

    monkeypatch.setattr(run.fit, "fit", fit)
    monkeypatch.setattr(run.report, "write", lambda *_: None)
    monkeypatch.setattr(build, "make_backbone", backbone)
    monkeypatch.setattr(strategies, "accelerators", list)  # of which the allocator says more
    monkeypatch.setattr(memory, "machine", lambda: memory.Machine(1e11, 1e11))

    def start(**fields):
        with caplog.at_level(logging.INFO):
            run.pretrain(tiny.config(**fields), str(tmp_path / "run"), tf.distribute.get_strategy())
        return handed

    return start


@pytest.fixture
def scans(tmp_path):
    """Fifty images of 12 bits in 16, ten photos that their EXIF turns."""
    folder = tmp_path / "scans"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    rng = np.random.default_rng(0)
    for i in range(50):
        values = rng.integers(0, 3000, (8, 8)).astype(np.uint16)
        Image.fromarray(values).save(folder / f"{i:02}.png")
    for i in range(50, 60):
        pixels = rng.integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.jpg", exif=exif)
    return folder


def test_before_the_first_step(started, scans, caplog):
    started(data__source=f"folder:{scans}", model__queue_size=400)
    for said in (
        "GB are available",  # and how much of it a step needs
        "leaves out 12 of the 60",
        "400 keys of 60 images",
        "have an EXIF orientation",
        "are nearly constant",
    ):
        assert said in caplog.text


def test_while_it_trains(started, scans, caplog):
    handed = started(data__source=f"folder:{scans}", data__max_pixels=95, log_every_steps=1)
    assert handed.why_bad("50.jpg") == " (12 x 8 px; --config.data.max_pixels=95)"
    direction = np.eye(DIM, dtype=np.float32)[:1]
    handed.model.queue.assign(np.repeat(direction, handed.model.queue_size, axis=0))
    for step in range(4, 10):  # the queue is full since step 3
        for observer in handed.observers:
            observer.measure(Round(step, step, {"loss": np.float32([1.0])}))
    assert f"effective rank is 1.0 of {DIM}" in caplog.text


def test_the_commands_of_a_run_are_kept_in_order_and_once(tmp_path):
    here = tf.distribute.get_strategy()
    assert command_record.read(str(tmp_path)) == []
    (tmp_path / "config.json").write_text("{}")
    command_record.add(str(tmp_path), "train --epochs=1", here)
    command_record.add(str(tmp_path), "train --epochs=2", here)  # no checkpoint yet: a new run
    (tmp_path / "checkpoints").mkdir()
    for command in ("train 'my photos'", "train --epochs=2"):
        command_record.add(str(tmp_path), command, here)
    assert command_record.read(str(tmp_path)) == ["train --epochs=2", "train 'my photos'"]


def test_a_slow_start_counts_for_its_own_steps():
    curves = Curves([report.SPEED])
    assert report.training_seconds(curves, batch_size=32) == 0
    for step, speed in ((10, 4.0), (20, 40.0), (120, 80.0)):  # images per second since the last
        curves.add({"step": step, report.SPEED: speed})
    assert report.training_seconds(curves, batch_size=32) == 80 + 8 + 40
