"""A run that resumes with other rounding says so."""

import json

import pytest
import tensorflow as tf

from moco_tf import startup
from moco_tf.training import checkpoint, rounding


@pytest.fixture
def claim(tmp_path, caplog):
    """Claims the same workdir, as a run that starts or resumes; returns what is logged."""
    workdir = tmp_path / "run"

    def claim():
        caplog.clear()
        checkpoint.claim_workdir({"seed": 0}, str(workdir), tf.distribute.get_strategy())
        (workdir / "checkpoints").mkdir(exist_ok=True)  # something to keep
        return caplog.text

    claim.record = workdir / rounding.RECORD
    return claim


def test_the_same_rounding_is_not_mentioned(claim):
    assert claim() == claim() == ""
    record = json.loads(claim.record.read_text())
    assert record == {"tensorflow": tf.__version__, "onednn": startup.has_onednn()}


def test_another_setting_of_onednn_is_said_with_the_remedy(claim, monkeypatch):
    monkeypatch.setattr(startup, "has_onednn", lambda: True)
    claim()
    monkeypatch.setattr(startup, "has_onednn", lambda: False)
    for _ in range(2):  # at each resume
        text = claim()
        assert "onednn: True -> False" in text and "TF_ENABLE_ONEDNN_OPTS=1" in text
        assert "tensorflow:" not in text


def test_another_tensorflow_is_said(claim):
    claim()
    record = json.loads(claim.record.read_text())
    claim.record.write_text(json.dumps({**record, "tensorflow": "2.20.0"}))
    text = claim()
    assert f"tensorflow: 2.20.0 -> {tf.__version__}" in text and "ONEDNN" not in text


def test_a_workdir_without_a_record_resumes(claim):
    claim()
    claim.record.unlink()
    assert claim() == ""
