"""What the configs of transfer have in common: training that is counted in steps, and a test."""

from moco_tf import schema
from moco_tf.schema import require
from moco_tf.training.config import check_optimizer


def check_training(config, kind, task):
    """Checks the type of a config, that of its fields, and the fields that all of them have.

    Args:
        config: what `--config` gave.
        kind: dataclass that it must be of.
        task: its `--task`, for messages.

    Raises:
        ValueError: naming the field, what must hold, and the value.
    """
    if not isinstance(config, kind):
        raise ValueError(
            f"`--config` must be one for --task={task}, whose get_config() gives a "
            f"{kind.__name__}. Received: a {type(config).__name__}."
        )
    schema.check_types(config)
    positive = ("batch_size", "steps", "test_every_steps", "test_batch_size")
    for name in (*positive, "log_every_steps", "checkpoint_every_steps"):
        require(config, name, lambda v: v > 0, "positive")
    for name in ("seed", "stop_after_steps"):
        require(config, name, lambda v: v >= 0, "zero or more")
    require(config, "epochs", lambda v: v == 0, "0: the run is counted in steps")
    check_optimizer(config)
    end = config.steps
    require(
        config,
        "optimizer.milestones_steps",
        lambda v: not v or max(v) < end,
        f"below the number of steps, {end}, such as {(round(0.7 * end), round(0.9 * end))}",
    )
