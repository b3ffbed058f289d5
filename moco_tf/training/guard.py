"""Guard: stops a run whose loss is not finite or whose images are bad; warns of slow input."""

import math
from collections.abc import Callable

from moco_tf.log import log
from moco_tf.training.callbacks import MetricsLog
from moco_tf.training.checkpoint import Checkpoints
from moco_tf.training.round import Observer

EXPLAINED = 10  # bad images whose reason is looked for


class Guard(Observer):
    """Stops a run with non-finite losses or bad images, and warns of slow input.

    Args:
        checkpoints: `Checkpoints` of the run, to name the last good one.
        batch: images in a step, over all replicas.
        max_bad_fraction: share of undecodable images that is tolerated.
        remedy: advice to the user if the loss is not finite.
        input_remedy: advice to the user if the run waits for input.
        max_skipped: number of steps with a non-finite loss or gradient that are tolerated.
        metrics: `MetricsLog` to which the steps before a failure are written, or None.
        why_bad: function from the name of an undecodable image to the reason, in words or "".
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        batch: int,
        max_bad_fraction: float,
        remedy: str,
        input_remedy: str,
        max_skipped: int = 0,
        metrics: MetricsLog | None = None,
        why_bad: Callable[[str], str] = lambda name: "",
    ):
        self.checkpoints = checkpoints
        self.batch = batch
        self.max_bad = max_bad_fraction
        self.remedy = remedy
        self.input_remedy = input_remedy
        self.max_skipped = max_skipped
        self.metrics = metrics
        self.why_bad = why_bad
        self.num_skipped = 0
        self.num_bad = 0
        self.num_images = 0
        self.named = set()
        self.has_warned_of_waiting = False

    def measure(self, round):
        for step, loss in enumerate(round.losses, start=round.first):
            if not math.isfinite(loss):
                self._skip(round, step, float(loss))
        self._count_bad(round)
        self._watch_input(round)
        return {"bad_images": float(self.num_bad)}

    def _skip(self, round, step, loss):
        self.num_skipped += 1
        round.skipped[step] = self.num_skipped
        if self.num_skipped > self.max_skipped:
            self._write_steps(round, step)
            raise FloatingPointError(
                "Loss and gradients must be finite"
                + (
                    f", but for --config.max_skipped_steps={self.max_skipped}"
                    if self.max_skipped
                    else ""
                )
                + f". Received: loss {loss} at step {step}. Such a step changes nothing. "
                f"The last checkpoint, a good one, is {self.checkpoints.latest}. {self.remedy}"
            )
        log.warning("Step %d is skipped: its loss or a gradient is not finite.", step)

    def _count_bad(self, round):
        self.num_images += self.batch * round.steps
        self.num_bad += round.bad
        for name in sorted(set(round.bad_names) - self.named):
            self.named.add(name)
            why = self.why_bad(name) if len(self.named) <= EXPLAINED else ""
            log.warning("Replaced an image that cannot be decoded: %s%s", name or "(no name)", why)
        # The share is meaningful only over a thousand images or more.
        if self.num_bad > self.max_bad * max(self.num_images, 1000):
            self._write_steps(round, round.last)
            names = ", ".join(sorted(self.named)[:3]) or "those named by other workers"
            raise ValueError(
                f"At most --config.data.max_bad_fraction={self.max_bad} of the images may be "
                f"undecodable. Received: {self.num_bad} of {self.num_images} up to step "
                f"{round.last}, such as {names}. Fix the data or raise the limit."
            )

    def _watch_input(self, round):
        wait = round.wait or 0.0
        if wait > 0.1 and round.last > 50 and not self.has_warned_of_waiting:
            self.has_warned_of_waiting = True
            log.warning(
                "Waiting for input %.0f %% of the time: the input pipeline is the bottleneck. %s",
                100 * wait,
                self.input_remedy,
            )

    def _write_steps(self, round, end):
        if self.metrics:
            self.metrics.write_steps(round, end)
            self.metrics.flush()
