"""Results of evaluations: accuracies with intervals, results.json, comparison table."""

import datetime
import json
import math
import os
import platform
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from moco_tf import encoders, schema, storage

Z = 1.96  # 95 % of a normal distribution


def measure(scores: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracies of scores, each with its 95 % interval.

    Args:
        scores: float NxK; the highest of a row is the predicted class, the first if equal.
        labels: true classes, int N.

    Returns:
        Dict of `top1`, `top5` (if K > 5) and `mean_per_class` (over the classes that occur), each
        a dict of value and interval [low, high], shares in [0, 1]. The first two have Wilson's
        interval. The mean has a normal interval of independent classes, with one hit and one miss
        added to each class.
    """
    n, num_classes = scores.shape
    label_scores = scores[np.arange(n), labels][:, None]
    is_earlier = np.arange(num_classes) < labels[:, None]
    # "Not below" rather than "above": a NaN must not pass for a hit.
    rank = np.sum(~(scores <= label_scores) | ((scores == label_scores) & is_earlier), axis=1)
    accuracies = {"top1": _share(rank < 1)}
    if num_classes > 5:
        accuracies["top5"] = _share(rank < 5)
    counts = np.bincount(labels, minlength=num_classes)
    hits = np.bincount(labels, rank < 1, minlength=num_classes)
    p, n = hits[counts > 0] / counts[counts > 0], counts[counts > 0]
    # Without the added hit and miss, a class with few images could have no uncertainty.
    q = (p * n + 1) / (n + 2)
    half = Z * math.sqrt(np.sum(q * (1 - q) / n)) / len(p)
    accuracies["mean_per_class"] = _with_interval(p.mean(), p.mean() - half, p.mean() + half)
    return accuracies


def chance(labels: np.ndarray) -> float:
    """Top-1 of a guess that is always the most frequent class: a share in [0, 1].

    Example:
        >>> chance(np.array([0, 1, 1, 2]))
        0.5
    """
    return float(np.bincount(labels).max() / len(labels))


def _share(hits):
    n, p = len(hits), float(np.mean(hits))
    center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    return _with_interval(p, center - half, center + half)


def _with_interval(value, low, high):
    return {"value": float(value), "interval": [max(0.0, float(low)), min(1.0, float(high))]}


def record(
    task: str,
    titles: dict[str, str],
    config: Any,
    loaded: encoders.Loaded,
    began: float,
    measured: dict,
) -> dict:
    """The content of results.json: results, encoder, config and versions.

    Args:
        task: name of the task.
        titles: dict from the names of its metrics to their titles.
        config: config of the task.
        loaded: evaluated encoder.
        began: start of the evaluation, seconds since the epoch.
        measured: dict from `Task.test`: metrics, protocol and more; NaN becomes None.
    """
    return {
        "task": task,
        **_without_nan(measured),
        "titles": {name: titles.get(name, name) for name in measured["metrics"]},
        "checkpoint": {
            "path": loaded.path,
            "sha256": loaded.digest,
            "encoder": "untrained" if getattr(config, "random_init", False) else "pre-trained",
        },
        "config": schema.to_dict(config),
        "seconds": round(time.time() - began, 1),
        "versions": versions(),
    }


def _without_nan(value):
    """Nested dicts and lists with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _without_nan(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def versions() -> dict[str, str]:
    """Versions of Python and the libraries, and the date."""
    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write(workdir: str, content: dict):
    """Writes WORKDIR/results.json."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    storage.write_text(os.path.join(workdir, "results.json"), text)


def read(workdir: str) -> dict:
    """The content of a workdir's results.json.

    Raises:
        ValueError: if the workdir has none.
    """
    path = os.path.join(workdir, "results.json")
    if not tf.io.gfile.exists(path):
        raise ValueError(
            "A comparison or export needs workdirs of finished evaluations, with a results.json. "
            f"Received: {workdir!r}, which has none. Run its evaluation to the end."
        )
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)


def percent(metric: dict) -> str:
    """A metric as text, such as "54.5 % (51.4 to 57.5)", or "54.5 %" without an interval.

    A metric with `is_share` false is no share, and shown as it is: "-3.12". A metric without a
    value says why, by its own `why`.
    """
    if metric["value"] is None:
        return f"no score ({metric['why']})" if "why" in metric else "no score"
    if not metric.get("is_share", True):
        return f"{metric['value']:.3f}"
    text = f"{100 * metric['value']:.1f} %"
    if None not in metric.get("interval", [None]):
        low, high = metric["interval"]
        text += f" ({100 * low:.1f} to {100 * high:.1f})"
    return text


def summary(results: dict) -> str:
    """One line with the metrics and the data of an evaluation."""
    metrics = [
        f"{title_of(name, results)} {percent(metric)}"
        for name, metric in results["metrics"].items()
    ]
    text = f"{results['task']} ({results['protocol']}): {', '.join(metrics)}"
    data = results.get("data", {})
    if "test_images" in data:
        text += f"; {data['test_images']} test images"
    if "classes" in data:
        text += f" of {data['classes']} classes"
    if "chance" in data:
        text += f", chance {100 * data['chance']:.1f} %"
    return f"{text}."


def title_of(name: str, results: dict) -> str:
    """The title of a metric, such as "top-1" for "top1"."""
    return results.get("titles", {}).get(name, name)


def compare(workdirs: list[str]) -> tuple[list[str], list[list[str]]]:
    """A table of several evaluations.

    Args:
        workdirs: folders of finished evaluations.

    Returns:
        Header, and one row for each workdir.
    """
    evaluations = [read(workdir) for workdir in workdirs]
    titles = {}  # name of a metric -> its title
    for results in evaluations:
        for name, metric in results["metrics"].items():
            mark = " (95 %)" if "interval" in metric else titles.get(name, "").partition(" (95")[1]
            titles[name] = title_of(name, results) + (" (95 %)" if mark else "")
    header = ["run", "task", "encoder", *titles.values(), "chance", "test images", "protocol"]
    runs = [os.path.basename(os.path.normpath(workdir)) for workdir in workdirs]
    if len(set(runs)) < len(runs):
        runs = workdirs
    rows = [
        [
            run,
            results["task"],
            results["checkpoint"]["encoder"],
            *(
                percent(results["metrics"][name]) if name in results["metrics"] else ""
                for name in titles
            ),
            _chance(results.get("data", {})),
            _test_images(results.get("data", {})),
            results["protocol"],
        ]
        for run, results in zip(runs, evaluations, strict=True)
    ]
    return header, rows


def _chance(data):
    return f"{100 * data['chance']:.1f} %" if "chance" in data else ""


def _test_images(data):
    return f"{data['test_images']} of {data['test']}" if "test" in data else ""
