"""Results are written whatever the scores: NaN becomes null, and the table says why."""

import json
import math
import types

import numpy as np

from moco_tf.detection.config import Detection
from moco_tf.evaluation import results

WHY = "no test object has a mask"


def record(metrics):
    """A record of results with these metrics, as a task returns them."""
    measured = {"metrics": metrics, "protocol": "p", "data": {"test": "x", "test_images": 3}}
    measured["details"] = {"per_class": {"cat": float("nan")}, "curve": [0.5, float("inf")]}
    loaded = types.SimpleNamespace(path="a", digest="b")
    return results.record("detection", {"ap": "box AP"}, Detection(), loaded, 0.0, measured)


def test_nan_is_null_and_says_why(tmp_path):
    metrics = {
        "ap": {"value": 0.25, "interval": [0.125, 0.5]},
        "mask_ap": {"value": math.nan, "why": WHY},
        "miou": {"value": float(np.float64("nan")), "interval": [math.nan, math.nan]},
    }
    content = record(metrics)
    results.write(str(tmp_path), content)
    assert json.loads((tmp_path / "results.json").read_text()) == content
    assert content["metrics"]["mask_ap"]["value"] is None
    assert content["metrics"]["miou"]["interval"] == [None, None]
    assert content["details"] == {"per_class": {"cat": None}, "curve": [0.5, None]}
    text = results.summary(content)
    assert f"mask_ap no score ({WHY})" in text and "box AP 25.0 % (12.5 to 50.0)" in text
    assert "miou no score;" in text
    header, (row,) = results.compare([str(tmp_path)])
    assert dict(zip(header, row, strict=True))["mask_ap"] == f"no score ({WHY})"


def test_a_value_whose_interval_is_unknown_is_shown_without_it():
    assert results.percent({"value": 0.5, "interval": [None, None]}) == "50.0 %"
