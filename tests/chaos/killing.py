"""Kills of real processes at random moments, and what the run was doing then."""

import dataclasses
import pathlib
import random
import time

import tiny

STARTS_S = 240  # a process has done a step by then


@dataclasses.dataclass
class Victim:
    """A run that is killed again and again, and started again by the same command.

    Attributes:
        start: function that starts its processes: a list of `subprocess.Popen`.
        workdir: of the run.
        rng: draws the moments.
        latest_s: a kill comes at most so long after the first step of a process.
    """

    start: object
    workdir: pathlib.Path
    rng: random.Random
    latest_s: float

    def kill(self, sig):
        """Starts it, and sends a signal to one of its processes after it has trained a step.

        Returns:
            (phase, steps that are done again), or None if the run ended before the kill.
        """
        processes = self.start()
        before, deadline = self.last_step(), time.time() + STARTS_S
        while self.last_step() <= before and all(p.poll() is None for p in processes):
            assert time.time() < deadline, "It does not train."
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0, self.latest_s))
        victim = self.rng.choice(processes)
        if any(p.poll() is not None for p in processes):
            self.wait(processes)
            return None
        victim.send_signal(sig)
        began = time.time()
        phase = self.phase()
        outputs = self.wait(processes)
        assert time.time() - began < 60, "It did not end within a minute."
        for process, output in zip(processes, outputs):
            if process is not victim and sig.name == "SIGKILL":
                assert "Another worker of this run ended or cannot be reached" in output
                assert process.returncode == 1 and "Traceback" not in output
            else:
                assert process.returncode == (143 if sig.name == "SIGTERM" else -sig), output
        return phase, self.last_step() - self.saved_step()

    @staticmethod
    def wait(processes):
        return [p.communicate(timeout=300)[0] for p in processes]

    def last_step(self):
        """The last step in metrics.jsonl."""
        path = self.workdir / "metrics.jsonl"
        steps = [line["step"] for line in tiny.metrics(self.workdir)] if path.exists() else []
        return max(steps, default=0)

    def saved_step(self):
        """The step of the newest checkpoint that the pointer names."""
        path = self.workdir / "checkpoints" / "checkpoint"
        if not path.exists():
            return 0
        return int(path.read_text().splitlines()[0].rpartition("-")[2].strip('"'))

    def phase(self):
        """What the files in the workdir say that the run is doing."""
        if any(self.workdir.glob(".*-*.keras")):
            return "writing the .keras file"
        folder = self.workdir / "checkpoints"
        steps = [int(p.stem.partition("-")[2].split("_")[0]) for p in folder.glob("step-*")]
        if any(folder.glob("*temp*")) or max(steps, default=0) > self.saved_step():
            return "writing a checkpoint"
        return f"after step {self.last_step()}"
