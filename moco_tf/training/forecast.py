"""Forecast of a run's duration, after its first few steps."""

from moco_tf.log import log
from moco_tf.training.plan import Plan
from moco_tf.training.round import Observer

FEW = 20  # a run of fewer calls is over soon


class Forecast(Observer):
    """Logs, after a few steps, how long an epoch and the rest of the run will take.

    The first call is left out, because it compiles the step.

    Args:
        plan: `Plan` of the run.
        batch: images in a step, over all replicas.
        start: steps done before.
        steps_per_call: steps in one call to the device.
    """

    def __init__(self, plan: Plan, batch: int, start: int, steps_per_call: int = 1):
        self.plan, self.batch = plan, batch
        self.first = start + steps_per_call
        self.last = start + 4 * steps_per_call
        if plan.stop - start >= FEW * steps_per_call:
            self.marks = self.first, self.last
            self.seconds = 0.0

    def round_end(self, round):
        if not self.marks or not self.first < round.last <= self.last:
            return
        self.seconds += round.seconds
        if round.last == self.last:
            step = self.seconds / (self.last - self.first)
            log.info(
                "%.0f images/s: about %s an epoch, %s for the remaining %d steps, without "
                "evaluations.",
                self.batch / step,
                duration(step * self.plan.steps_per_epoch),
                duration(step * (self.plan.stop - self.last)),
                self.plan.stop - self.last,
            )


def duration(seconds: float) -> str:
    """A duration in the unit that suits it.

    Example:
        >>> duration(40), duration(1800), duration(79_200), duration(864_000)
        ('40 s', '30 min', '22.0 h', '10.0 days')
    """
    for unit, name, least in ((86_400, "days", 2), (3600, "h", 1.5)):
        if seconds >= least * unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
