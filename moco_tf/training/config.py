"""Config fields that all runs that train share: optimizer and length."""

from dataclasses import dataclass

from moco_tf import schema
from moco_tf.schema import option, require


@dataclass
class Optimizer:
    """An optimizer and its learning-rate schedule; SGD has torch's semantics."""

    name: str = option(
        "sgd",
        choices=("sgd", "lars", "adamw"),
        help="sgd, lars (large batches) or adamw (transformers); the last two in pre-training only",
    )
    learning_rate: float = option(
        0.03, above=0, help="for `reference_batch` rows; scaled linearly with the batch"
    )
    reference_batch: int = option(256, at_least=1, help="rows the learning rate is given for")
    momentum: float = option(0.9, at_least=0, below=1, help="momentum of SGD and LARS")
    weight_decay: float = option(
        1e-4,
        at_least=0,
        help="L2, on every parameter; in detection not on BN's; of lars not on biases and BN; of "
        "adamw decoupled",
    )
    schedule: str = option(
        "cosine",
        choices=("cosine", "cosine_after_warmup", "step"),
        help="how the rate falls: cosine is that of the whole run and changes once an epoch, "
        "cosine_after_warmup starts after the rise and changes every step",
    )
    first_epoch: int = option(
        0, at_least=0, help="number of the first epoch, for the cosine; 1 in the CIFAR-10 demo"
    )
    milestones: tuple[float, ...] = option(
        (),
        above=0,
        below=1,
        increasing=True,
        help="shares of the run after which the rate falls, for step; the next count if given",
    )
    milestones_epochs: tuple[int, ...] = option(
        (), at_least=1, increasing=True, help="epochs at which the rate falls, for step"
    )
    milestones_steps: tuple[int, ...] = option(
        (), at_least=1, increasing=True, help="the same in runs counted in steps"
    )
    factor: float = option(0.1, at_least=0, help="factor of the rate at each milestone")
    warmup_epochs: float = option(0.0, at_least=0, help="length of a linear rise, in epochs")
    warmup_steps: int = option(0, at_least=0, help="the same in runs counted in steps")
    warmup_factor: float = option(
        0.001, at_least=0, at_most=1, help="share of the rate at the first step of a linear rise"
    )


@dataclass(frozen=True)
class Length:
    """Length of a run and its schedule, in epochs or in steps.

    Attributes:
        epochs: number of epochs, None in a run that is counted in steps.
        steps: number of steps, None in a run that is counted in epochs.

    Example:
        Length(epochs=2).total_steps(steps_per_epoch=10)  # 20
        Length(steps=7).total_steps(steps_per_epoch=10)  # 7
    """

    epochs: int | None = None
    steps: int | None = None

    def __post_init__(self):
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                "A run is as long as its epochs or its steps. Received: "
                f"epochs={self.epochs}, steps={self.steps}."
            )

    def total_steps(self, steps_per_epoch: int) -> int:
        """Number of steps on data with so many steps an epoch."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps


@dataclass
class TransferRun:
    """Fields that detection and segmentation share: training counted in steps, and a test."""

    random_init: bool = option(False, help="the same architecture from scratch, as the control")
    seed: int = option(0, at_least=0, help="seed of weights, data order and augmentation")
    deterministic: bool = option(False, help="bitwise repeatable ops, slower on GPU")
    batch_size: int = option(16, at_least=1, help="images, over all replicas")
    steps: int = option(30_000, at_least=1, help="length of the run and of the schedule")
    stop_after_steps: int | None = option(
        None, at_least=1, help="end early, with the schedule of the whole run"
    )
    test_every_steps: int = option(
        5000, at_least=1, help="for the curve; at the end it is always tested"
    )
    test_batch_size: int = option(8, at_least=1, help="images, over all replicas")
    log_every_steps: int = option(20, at_least=1, help="steps between lines of the log")
    checkpoint_every_steps: int = option(1000, at_least=1, help="steps between checkpoints")

    @property
    def length(self) -> Length:
        """`Length` of the run."""
        return Length(steps=self.steps)


def check_type(config: object, config_class: type, task: str):
    """Checks that a config is one for a task.

    Args:
        config: value of `--config`.
        config_class: dataclass of the task's configs.
        task: name of the task, for messages.

    Raises:
        ValueError: if the config is of another class.
    """
    if type(config) is not config_class:
        raise ValueError(
            f"`--config` must be one for --task={task}, whose get_config() returns a "
            f"{config_class.__name__}. Received: a {type(config).__name__}."
        )


def check_transfer(config: TransferRun, config_class: type, task: str):
    """Checks the config of a detection or segmentation: single fields, type and optimizer.

    Args:
        config: value of `--config`.
        config_class: dataclass of the task's configs.
        task: name of the task, for messages.

    Raises:
        ValueError: with the field, the rule and the value received.
    """
    check_type(config, config_class, task)
    schema.check(config)
    check_optimizer(config)
    end = config.steps
    require_sgd(config)
    require(
        config,
        "optimizer.milestones_steps",
        lambda v: not v or max(v) < end,
        f"below the number of steps, {end}, such as {(round(0.7 * end), round(0.9 * end))}",
    )


def require_sgd(config):
    """Raises ValueError unless the optimizer is SGD, which all tasks but pre-training need."""
    require(config, "optimizer.name", lambda v: v == "sgd", "sgd, but in pre-training")


def check_optimizer(config):
    """Checks that the optimizer's schedule counts in the unit of the config's length.

    Raises:
        ValueError: with the field, the rule and the value received.
    """
    if config.steps is None:
        require(config, "epochs", bool, "positive, unless `--config.steps` is given")
        require(config, "optimizer.milestones_steps", lambda v: not v, "empty in runs of epochs")
        require(config, "optimizer.warmup_steps", lambda v: not v, "0 in runs of epochs")
        if config.optimizer.schedule == "cosine":
            rule = f"below the number of epochs, {config.epochs}: the rate is 0 from that epoch on"
            require(config, "optimizer.first_epoch", lambda v: v < config.epochs, rule)
    else:
        require(config, "optimizer.milestones_epochs", lambda v: not v, "empty in runs of steps")
        require(config, "optimizer.warmup_epochs", lambda v: not v, "0 in runs of steps")
    if config.optimizer.schedule == "cosine_after_warmup":
        unit = "epochs" if config.steps is None else "steps"
        end = getattr(config, unit)
        rule = f"below the length of the run, {end} {unit}"
        require(config, f"optimizer.warmup_{unit}", lambda v: v < end, rule)
        rule = "0 with schedule=cosine_after_warmup"
        require(config, "optimizer.first_epoch", lambda v: v == 0, rule)


def length_of(epochs: int | None, steps: int | None) -> Length:
    """`Length` of the fields epochs and steps of a config; steps count if both are given."""
    return Length(steps=steps) if steps is not None else Length(epochs=epochs)
