"""`Round`, the report of a few training steps, and `Observer`, which receives it."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Round:
    """The report of consecutive steps, between which the host did not wait for the device.

    Attributes:
        first: number of the first step, counted from 1; 0 in the report of the untrained model.
        last: number of the last step; 0 in the report of the untrained model.
        logs: values that the steps returned, the loss first: dict of float32 arrays with one value
            for each step, the mean over all replicas.
        seconds: duration of the round.
        wait: share of the duration spent waiting for input; None if it was not measured.
        bad: number of undecodable images that were replaced, on all workers.
        bad_names: names of the undecodable images of this worker.
        skipped: dict from the number of a skipped step to the number of steps skipped by then.
        measured: values from the observers at the end of the round, by name.
    """

    first: int
    last: int
    logs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    wait: float | None = None
    bad: int = 0
    bad_names: list[str] = dataclasses.field(default_factory=list)
    skipped: dict[int, int] = dataclasses.field(default_factory=dict)
    measured: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of steps in the round."""
        return 0 if self.last == 0 else self.last - self.first + 1

    @property
    def losses(self) -> np.ndarray:
        """The loss of each step; NaN for a step that was skipped."""
        return next(iter(self.logs.values()))

    def step_logs(self, step: int) -> dict[str, float]:
        """Values that one step returned, by name."""
        return {name: float(values[step - self.first]) for name, values in self.logs.items()}


class Observer:
    """Watches a run. The loop calls `measure` of all observers before `round_end` of any.

    Attributes:
        every: number of steps at whose multiples a round must end; 0 for none.
        marks: further steps at which a round must end.
    """

    every = 0
    marks = ()

    def start(self, step: int):
        """Called before the first step.

        Args:
            step: number of steps done before, 0 in a new run.
        """

    def measure_untrained(self) -> dict[str, float]:
        """Values for the log, measured before step 1 of a new run."""
        return {}

    def round_begin(self, step: int):
        """Called before each round.

        Args:
            step: number of steps done before.
        """

    def measure(self, round: Round) -> dict[str, float]:
        """Values for the log, measured at the end of a round; they go to `round.measured`."""
        return {}

    def round_end(self, round: Round):
        """Called after all observers have measured. A new run starts with a round of no steps."""

    def end(self):
        """Called after the last step, also when the run was asked to stop."""
