"""Killed at random moments, a run goes on by itself, to the same end as an undisturbed one."""

import random
import signal
import time

import evaluations
import killing
import pytest
import tiny

STEPS = 250
FLAGS = {
    "log_every_steps": 1,
    "checkpoint_every_steps": 3,
    "stop_after_steps": STEPS,
    "epochs": 4,
}


def one(workdir):
    return [tiny.start(tiny.command(workdir, **FLAGS))]


def mirrored(workdir):
    return [tiny.start(tiny.command(workdir, "--strategy=mirrored", cpus=2, **FLAGS))]


def multiworker(workdir):
    args = tiny.command(workdir, "--strategy=multiworker", **FLAGS)
    return tiny.start_workers(2, lambda i: args)


def to_the_end(processes):
    """Waits for processes that are not killed; returns their outputs."""
    outputs = [p.communicate(timeout=600)[0] for p in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output[-3000:]
    return outputs


def survive(name, start, kills, folder, record_property):
    """Kills a run again and again, and compares its end with that of an undisturbed one.

    Args:
        name: of the run.
        start: function from a workdir to the processes of a run of `STEPS` steps.
        kills: number of kills, a quarter of them by SIGTERM.
        folder: for the workdirs.
        record_property: the fixture.
    """
    whole, workdir = folder / "whole", folder / "killed"
    to_the_end(start(whole))
    victim = killing.Victim(lambda: start(workdir), workdir, random.Random(kills), latest_s=1.0)
    lost = {signal.SIGKILL: [], signal.SIGTERM: []}
    for i in range(kills):
        sig = signal.SIGTERM if i % 4 == 3 else signal.SIGKILL
        killed = victim.kill(sig)
        assert killed, "The run ended too soon: give it more steps."
        phase, steps = killed
        record_property("seen", f"{name}: {sig.name} {phase}, {steps} steps lost")
        lost[sig].append(steps)
    to_the_end(start(workdir))

    tiny.assert_same_state(whole, workdir)
    tiny.assert_each_step_once(workdir, STEPS)
    assert (tiny.losses(whole) == tiny.losses(workdir)).all()
    assert sum(lost[signal.SIGTERM]) == 0
    assert not [p for p in workdir.rglob("*") if p.name.startswith(".") or "temp" in p.name]
    for sig, steps in lost.items():
        record_property("fault", (f"{sig.name}, {name}", *[len(steps)] * 2, sum(steps)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("start, kills", [(one, 16), (mirrored, 8), (multiworker, 6)])
def test_a_run_killed_at_random_moments(start, kills, tmp_path, record_property):
    survive(start.__name__, start, kills, tmp_path, record_property)


@pytest.mark.slow
def test_an_evaluation_killed_at_random_moments(pretrained, tmp_path, record_property):
    epochs = STEPS // 5  # 200 images in batches of 40
    flags = ("--config.batch_size=40", f"--config.epochs={epochs}", "--config.log_every_steps=1")
    flags += ("--config.checkpoint_every_steps=3", "--config.optimizer.learning_rate=0.1")
    flags += (f"--config.optimizer.milestones_epochs=({epochs // 2},)",)

    def start(workdir):
        where = f"--workdir={workdir}"
        return [tiny.start(evaluations.command("linear", pretrained, workdir, where, *flags))]

    survive("evaluation", start, 4, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("hung", [0, 1])
def test_a_worker_that_hangs(hung, tmp_path, record_property):
    processes = multiworker(tmp_path / "run")
    victim = killing.Victim(None, tmp_path / "run", random.Random(0), latest_s=0)
    while victim.last_step() < 5:
        time.sleep(0.1)
    processes[hung].send_signal(signal.SIGSTOP)
    began = time.time()
    other = processes[1 - hung]
    output, _ = other.communicate(timeout=300)
    seconds = time.time() - began
    processes[hung].kill()
    processes[hung].communicate()
    record_property("seen", f"worker {hung} hangs: the other ended after {seconds:.0f} s")
    assert seconds < 60 and other.returncode == 1
    assert "Another worker of this run ended or cannot be reached" in output
    record_property("fault", ("a worker hangs", 1, 1, victim.last_step() - victim.saved_step()))
