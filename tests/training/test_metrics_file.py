"""metrics.jsonl of any length: cutting at a resume, curves of few points, constant memory."""

import json
import tracemalloc

import numpy as np
import pytest

from moco_tf.training import metrics_file
from moco_tf.training.metrics_file import Curves, cut_after, lines_of


def write(path, steps, ending=""):
    lines = [json.dumps({"step": s, "loss": s / 2, "name": "x" * (s % 50)}) for s in steps]
    path.write_text("".join(line + "\n" for line in lines) + ending)
    return str(path)


@pytest.mark.parametrize("ending", ["", '{"step": 101, "lo', '{"step": 101,\n'])
@pytest.mark.parametrize("step", [1, 37, 99, 100, 5000])
def test_a_resume_keeps_the_lines_up_to_its_step(step, ending, tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_file, "TAIL_BYTES", 64)  # so that the tail grows several times
    path = write(tmp_path / "metrics.jsonl", range(101), ending)
    cut_after(path, step)
    assert [line["step"] for line in lines_of(path)] == list(range(min(step, 100) + 1))
    assert (tmp_path / "metrics.jsonl").read_bytes().endswith(b"}\n")


def test_a_new_run_starts_an_empty_file(tmp_path):
    path = write(tmp_path / "metrics.jsonl", range(3))
    cut_after(path, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    cut_after(str(tmp_path / "other.jsonl"), 7)
    assert (tmp_path / "other.jsonl").read_text() == ""
    cut_after(write(tmp_path / "metrics.jsonl", range(5, 9)), 3)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_resume_reads_the_tail_only(tmp_path, monkeypatch):
    path = write(tmp_path / "metrics.jsonl", range(20_000))
    read = []
    loads = json.loads
    monkeypatch.setattr(metrics_file.json, "loads", lambda text: read.append(text) or loads(text))
    cut_after(path, 19_990)
    assert len(read) == 10


def test_short_curves_have_each_step_and_long_ones_means(tmp_path):
    curves, short = Curves(["loss", "other"], most=64), Curves(["loss"], most=64)
    tracemalloc.start()
    for line in lines_of(write(tmp_path / "metrics.jsonl", range(5000))):
        curves.add(line)
        if line["step"] < 60:
            short.add(line)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6  # the lines in the file are 300 kB, and would take 2 MB as dicts
    x, y = short.points("loss")
    np.testing.assert_array_equal(x, np.arange(60))
    np.testing.assert_array_equal(y, np.arange(60) / 2)
    x, y = curves.points("loss")
    assert 32 <= len(x) <= 65
    np.testing.assert_array_equal(y, x / 2)
    width = int(x[1] - x[0])
    assert x[0] == (width - 1) / 2 and width & (width - 1) == 0
    assert np.isclose(x[-1], np.mean(np.arange((len(x) - 1) * width, 5000)))
    assert [len(a) for a in curves.points("other")] == [0, 0]
    assert len(list(lines_of(str(tmp_path / "metrics.jsonl")))) == 5000
