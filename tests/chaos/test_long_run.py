"""Twenty thousand steps: memory, threads, files and compiled programs stay as they are."""

import os
import pathlib

import pytest
import tensorflow as tf
import tiny

from moco_tf.pretraining import run
from moco_tf.training import loop

STEPS, SETTLED = 20_000, 2_000


def usage():
    """Resident memory (kB), threads and open files of this process."""
    status = pathlib.Path("/proc/self/status").read_text()
    numbers = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "memory": int(numbers["VmRSS"].split()[0]),
        "threads": int(numbers["Threads"]),
        "files": len(os.listdir("/proc/self/fd")),
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_long_run_leaks_nothing(tmp_path, monkeypatch, record_property):
    calls, seen = [], []
    make_call = loop.make_call

    def counted(*args, **options):
        calls.append(make_call(*args, **options))
        return calls[-1]

    def stop():
        seen.append(usage())
        return False

    monkeypatch.setattr(loop, "make_call", counted)
    config = tiny.config(
        stop_after_steps=STEPS,
        epochs=1000,
        model__width=2,
        log_every_steps=100,
        checkpoint_every_steps=1000,
    )
    run.pretrain(config, str(tmp_path), tf.distribute.get_strategy(), stop)
    assert [call.experimental_get_tracing_count() for call in calls] == [1]
    per_step = len(seen) / STEPS
    after, end = seen[round(SETTLED * per_step)], seen[-1]
    record_property("seen", f"after {SETTLED} steps {after}, after {STEPS} {end}")
    assert end["memory"] < 1.02 * after["memory"]
    assert end["threads"] <= after["threads"] + 1 and end["files"] <= after["files"] + 1
    record_property("fault", ("20,000 steps", 1, 1, 0))
