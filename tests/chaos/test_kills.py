"""Killed at random moments, a run goes on by itself, to the same end as an undisturbed one."""

import random
import signal

import killing
import pytest
import tiny
from test_train_script import assert_each_step_once

FLAGS = {
    "log_every_steps": 1,
    "checkpoint_every_steps": 3,
    "stop_after_steps": 400,
    "epochs": 4,
    "data.max_bad_fraction": 0.1,
}


def one(workdir):
    return [tiny.start(tiny.command(workdir, **FLAGS))]


def mirrored(workdir):
    return [tiny.start(tiny.command(workdir, "--strategy=mirrored", cpus=2, **FLAGS))]


def multiworker(workdir):
    return tiny.start_workers(2, lambda i: tiny.command(workdir, "--strategy=multiworker", **FLAGS))


@pytest.mark.slow
@pytest.mark.parametrize("start, kills", [(one, 16), (mirrored, 8), (multiworker, 6)])
def test_a_run_killed_at_random_moments_ends_as_an_undisturbed_one(
    start, kills, tmp_path, record_property
):
    for process in (whole := start(tmp_path / "whole")):
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output[-3000:]
    del whole

    workdir, rng = tmp_path / "killed", random.Random(kills)
    victim = killing.Victim(lambda: start(workdir), workdir, rng, latest_s=2.0)
    lost = {signal.SIGKILL: [], signal.SIGTERM: []}
    for i in range(kills):
        sig = signal.SIGTERM if i % 4 == 3 else signal.SIGKILL
        killed = victim.kill(sig)
        assert killed, "The run ended too soon: give it more steps."
        phase, steps = killed
        print(f"{start.__name__}: {sig.name} {phase}, {steps} steps lost")
        lost[sig].append(steps)
    outputs = [p.communicate(timeout=600)[0] for p in victim.start()]
    assert all("resuming after step" in output for output in outputs)

    tiny.assert_same_state(tmp_path / "whole", workdir)
    assert_each_step_once(workdir, FLAGS["stop_after_steps"])
    assert (tiny.losses(tmp_path / "whole") == tiny.losses(workdir)).all()
    assert sum(lost[signal.SIGTERM]) == 0
    left = [p.name for p in workdir.rglob("*") if p.name.startswith(".") or "temp" in p.name]
    assert not left
    for sig, steps in lost.items():
        record_property("fault", (f"{sig.name}, {start.__name__}", *[len(steps)] * 2, sum(steps)))
