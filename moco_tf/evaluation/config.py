"""The configuration of an evaluation, a class for each task.

What is left empty is taken from the pre-training run whose encoder is evaluated.
"""

from dataclasses import dataclass, field

from moco_tf import schema
from moco_tf.schema import require
from moco_tf.training.config import Optimizer, check_optimizer


@dataclass
class Data:
    """Labelled images to learn from, and others to test on."""

    train: str = ""  # address, see moco_tf/data/sources; "" is the run's own training split
    test: str = ""  # likewise; "" is the held-out split beside it
    data_dir: str = ""  # folder of prepared TFDS data sets; "" is the run's
    num_train: int = 0  # records of a tfrecord: source, 0 counts them
    num_test: int = 0  # likewise
    num_classes: int = 0  # 0: as many as the data names or has; tfrecord: needs it
    fraction: float = 1.0  # share of each class' training images used, in (0, 1]
    names: str = ""  # file with the names of the training images used, one a line
    subset_seed: int = 0  # which images a fraction takes
    recipe: str = ""  # whose normalisation; "" is the run's, moco:v2 without a run
    image_size_px: int = 0  # side of the crops; 0 is the run's
    resize_px: int = 0  # short side before a centre crop; 0 is the run's, or 8/7 of the size
    max_bad_fraction: float = 0.01  # undecodable images tolerated, share in [0, 1]
    shuffle_buffer: int = 10_000  # records, of sources that are streamed
    features_dir: str = ""  # where features are kept; "" is features/ beside the encoder


@dataclass
class Task:
    """What all tasks share."""

    data: Data = field(default_factory=Data)
    backbone: str = ""  # name that the encoder's must have, such as resnet50; "" takes any
    random_init: bool = False  # the same architecture untrained, as the baseline
    seed: int = 0
    deterministic: bool = False  # bitwise repeatable ops, slower on GPU
    rows: int = 256  # images at a time, over all replicas, where none is trained on


@dataclass
class Knn(Task):
    """kNN on the features of centre crops. Source: the CIFAR-10 demo; arXiv:1805.01978."""

    neighbours: tuple = (200, 100, 20, 10)  # k, all in one pass; the first makes the headline
    temperature: float = 0.1  # of the votes


@dataclass
class LinearCached(Task):
    """Linear classifiers on the features of centre crops, many at once.

    The pair of learning rate and weight decay that is best on held-out training images is
    trained again on all of them.
    """

    learning_rates: tuple = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # for `batch_size`
    weight_decays: tuple = (0.0, 1e-5, 1e-4)  # L2
    held_out: float = 0.1  # share of each class' training images to choose by
    momentum: float = 0.9
    batch_size: int = 256
    epochs: int = 100  # with a cosine


@dataclass
class Supervised(Task):
    """What the two tasks share that train on random crops."""

    optimizer: Optimizer = field(default_factory=Optimizer)
    batch_size: int = 256
    epochs: int = 100
    steps: int = 0  # length in steps instead; 0 counts epochs
    stop_after_steps: int = 0  # end early, with the schedule of the whole run; 0 does not
    test_every_epochs: int = 10  # for the curve; the last epoch is always tested
    log_every_steps: int = 20
    checkpoint_every_steps: int = 1000


@dataclass
class Linear(Supervised):
    """A linear classifier on the frozen backbone, which is in inference mode.

    Source: main_lincls.py; but that keeps the incomplete last batch of an epoch.
    """

    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(
            learning_rate=30.0, weight_decay=0.0, schedule="step", milestones_epochs=(60, 80)
        )
    )


@dataclass
class Finetune(Supervised):
    """Training end to end. Source: v1, section 4.2 (iNaturalist); SimCLR for few labels."""

    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(
            learning_rate=0.025, weight_decay=1e-4, schedule="step", milestones_epochs=(70, 90)
        )
    )
    head_factor: float = 1.0  # the classifier's learning rate, in those of the backbone
    bn_group_size: int = 0  # rows that share BN statistics; 0: all rows of a replica


TASKS = {"knn": Knn, "linear": Linear, "linear_cached": LinearCached, "finetune": Finetune}


def check(config, task):
    """Checks every field of an evaluation's config.

    Raises:
        ValueError: naming the field, what must hold, and the value; or for another task's config.
    """
    if type(config) is not TASKS[task]:
        raise ValueError(
            f"`--config` must be one for --task={task}, whose get_config() gives a "
            f"{TASKS[task].__name__}. Received: a {type(config).__name__}."
        )
    schema.check_types(config)
    data = config.data
    for name in ("num_train", "num_test", "num_classes", "image_size_px", "resize_px"):
        require(config, f"data.{name}", lambda v: v >= 0, "zero or more")
    require(config, "data.fraction", lambda v: 0 < v <= 1, "in (0, 1]")
    require(config, "data.max_bad_fraction", lambda v: 0 <= v <= 1, "in [0, 1]")
    require(config, "data.shuffle_buffer", lambda v: v > 0, "positive")
    require(
        config, "data.names", lambda v: not v or data.fraction == 1, "empty with a data.fraction"
    )
    for name in ("seed", "data.subset_seed"):
        require(config, name, lambda v: v >= 0, "zero or more")
    require(config, "rows", lambda v: v > 0, "positive")
    CHECKS[task](config)


def _check_knn(config):
    _require_numbers(config, "neighbours", int, lambda v: v > 0, "positive whole numbers")
    require(config, "temperature", lambda v: v > 0, "positive")


def _check_linear_cached(config):
    _require_numbers(config, "learning_rates", float, lambda v: v > 0, "positive numbers")
    _require_numbers(config, "weight_decays", float, lambda v: v >= 0, "numbers of zero or more")
    require(config, "held_out", lambda v: 0 < v < 1, "in (0, 1)")
    require(config, "momentum", lambda v: 0 <= v < 1, "in [0, 1)")
    for name in ("batch_size", "epochs"):
        require(config, name, lambda v: v > 0, "positive")


def _check_supervised(config):
    positive = ("batch_size", "log_every_steps", "checkpoint_every_steps", "test_every_epochs")
    for name in positive:
        require(config, name, lambda v: v > 0, "positive")
    for name in ("epochs", "steps", "stop_after_steps"):
        require(config, name, lambda v: v >= 0, "zero or more")
    check_optimizer(config)
    if config.optimizer.schedule == "step" and not config.steps:
        end = config.epochs
        require(
            config,
            "optimizer.milestones_epochs",
            lambda v: v and max(v) < end,
            f"below the number of epochs, {end}, such as {(round(0.6 * end), round(0.8 * end))}",
        )
    if isinstance(config, Finetune):
        require(config, "head_factor", lambda v: v > 0, "positive")
        require(config, "bn_group_size", lambda v: v >= 0, "zero or more")


CHECKS = {
    "knn": _check_knn,
    "linear_cached": _check_linear_cached,
    "linear": _check_supervised,
    "finetune": _check_supervised,
}


def _require_numbers(config, name, kind, holds, rule):
    number = (int, float) if kind is float else kind
    require(
        config,
        name,
        lambda v: len(v) > 0 and all(isinstance(x, number) and holds(x) for x in v),
        f"{rule}, at least one",
    )
