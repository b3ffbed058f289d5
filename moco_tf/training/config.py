"""What the configs of all runs that train have in common."""

from dataclasses import dataclass

from moco_tf.schema import require


@dataclass
class Optimizer:
    """SGD, with torch's semantics."""

    learning_rate: float = 0.03  # for `reference_batch` rows, scaled linearly with the batch
    reference_batch: int = 256  # rows
    momentum: float = 0.9
    weight_decay: float = 1e-4  # L2, on every parameter
    schedule: str = "cosine"  # or "step"
    first_epoch: int = 0  # number of the first epoch, for the cosine; 1 in the CIFAR-10 demo
    milestones_epochs: tuple = ()  # for "step"
    milestones_steps: tuple = ()  # for "step" in runs counted in steps
    factor: float = 0.1  # at each milestone
    warmup_epochs: float = 0.0  # linear rise from 0
    warmup_steps: int = 0  # likewise, in runs counted in steps


def check_optimizer(config):
    """Checks the optimizer of a config with `epochs` and `steps`, of which `steps` counts if given.

    Raises:
        ValueError: as `check`.
    """
    for name in ("learning_rate", "reference_batch"):
        require(config, f"optimizer.{name}", lambda v: v > 0, "positive")
    for name in ("weight_decay", "first_epoch", "factor", "warmup_epochs", "warmup_steps"):
        require(config, f"optimizer.{name}", lambda v: v >= 0, "zero or more")
    require(config, "optimizer.momentum", lambda v: 0 <= v < 1, "in [0, 1)")
    valid = ("cosine", "step")
    require(config, "optimizer.schedule", lambda v: v in valid, f"one of {', '.join(valid)}")
    for name in ("optimizer.milestones_epochs", "optimizer.milestones_steps"):
        require(
            config,
            name,
            lambda v: all(isinstance(x, int) and x > 0 for x in v) and list(v) == sorted(set(v)),
            "increasing positive whole numbers",
        )
    if not config.steps:
        require(config, "epochs", lambda v: v > 0, "positive, unless `config.steps` is")
        require(config, "optimizer.milestones_steps", lambda v: not v, "empty in runs of epochs")
        require(config, "optimizer.warmup_steps", lambda v: not v, "0 in runs of epochs")
    else:
        require(config, "optimizer.milestones_epochs", lambda v: not v, "empty in runs of steps")
        require(config, "optimizer.warmup_epochs", lambda v: not v, "0 in runs of steps")
