"""Configs of the evaluation tasks on labelled images, one class for each task.

The default none of a field stands for the value of the encoder's pre-training run.
"""

from dataclasses import dataclass, field

from moco_tf.schema import option, require
from moco_tf.training.config import Length, Optimizer, check_optimizer, length_of, require_sgd


@dataclass
class Data:
    """Labelled training and test images."""

    train: str | None = option(
        None, help="address, see moco_tf/data/sources; none: the run's own training split"
    )
    test: str | None = option(
        None, help="address; none: the held-out split beside `train`, or a fifth of it"
    )
    data_dir: str | None = option(None, help="folder of prepared TFDS data sets; none: the run's")
    num_train: int | None = option(
        None, at_least=1, help="records of a tfrecord: source; none counts them"
    )
    num_test: int | None = option(None, at_least=1, help="the same for the test images")
    num_classes: int | None = option(
        None, at_least=1, help="none: as many as the data names or has; tfrecord: needs it"
    )
    fraction: float = option(
        1.0, above=0, at_most=1, help="share of each class' training images that is used"
    )
    names: str | None = option(
        None, help="file with the names of the training images to use, one a line"
    )
    subset_seed: int = option(0, at_least=0, help="seed of the choice of images for `fraction`")
    recipe: str | None = option(
        None, help="address whose normalization is used; none: the run's, moco:v2 without a run"
    )
    image_size_px: int | None = option(None, at_least=1, help="side of the crops; none: the run's")
    resize_px: int | None = option(
        None,
        at_least=1,
        help="short side before a center crop; none: the run's, or 8/7 of the size",
    )
    max_bad_fraction: float = option(
        0.01, at_least=0, at_most=1, help="share of undecodable images that is tolerated"
    )
    shuffle_buffer: int = option(10_000, at_least=1, help="records, for sources that are streamed")
    features_dir: str | None = option(
        None, help="folder where features are kept; none: features/ beside the encoder"
    )


@dataclass
class Task:
    """Fields that all tasks share."""

    data: Data = field(default_factory=Data)
    backbone: str | None = option(
        None, help="name that the encoder's backbone must have, such as resnet50; none: any"
    )
    random_init: bool = option(False, help="the same architecture untrained, as the baseline")
    seed: int = option(0, at_least=0, help="seed of new weights, data order and augmentation")
    deterministic: bool = option(False, help="bitwise repeatable ops, slower on GPU")
    rows: int = option(
        256, at_least=1, help="images at a time, over all replicas, where none is trained on"
    )


@dataclass
class Knn(Task):
    """kNN on the features of center crops. Source: arXiv:1805.01978; mmselfsup's temperature."""

    neighbours: tuple[int, ...] = option(
        (200, 100, 20, 10),
        at_least=1,
        min_items=1,
        help="values of k, all in one pass; the first of at most the training images a class gives "
        "the main result",
    )
    temperature: float = option(0.07, above=0, help="temperature of the votes")


@dataclass
class LinearCached(Task):
    """Linear classifiers on the features of center crops, many at once.

    The pair of learning rate and weight decay that is best on held-out training images is
    trained again on all of them.
    """

    learning_rates: tuple[float, ...] = option(
        (0.1, 0.3, 1.0, 3.0, 10.0, 30.0), above=0, min_items=1, help="rates for `batch_size` to try"
    )
    weight_decays: tuple[float, ...] = option(
        (0.0, 1e-5, 1e-4), at_least=0, min_items=1, help="L2 penalties to try"
    )
    held_out: float = option(
        0.1, above=0, below=1, help="share of each class' training images to choose by"
    )
    momentum: float = option(0.9, at_least=0, below=1, help="momentum of SGD")
    batch_size: int = option(256, at_least=1, help="rows")
    epochs: int = option(100, at_least=1, help="length of the training, with a cosine")


@dataclass
class Supervised(Task):
    """Fields of the tasks that train on random crops: linear and finetune."""

    optimizer: Optimizer = field(default_factory=Optimizer)
    batch_size: int = option(256, at_least=1, help="images, over all replicas")
    epochs: int | None = option(100, at_least=1, help="length of the run and of the schedule")
    steps: int | None = option(None, at_least=1, help="length in steps instead")
    stop_after_steps: int | None = option(
        None, at_least=1, help="end early, with the schedule of the whole run"
    )
    test_every_epochs: int = option(
        10, at_least=1, help="for the curve; the last epoch is always tested"
    )
    log_every_steps: int = option(20, at_least=1, help="steps between lines of the log")
    checkpoint_every_steps: int = option(1000, at_least=1, help="steps between checkpoints")

    @property
    def length(self) -> Length:
        """`Length` of the run."""
        return length_of(self.epochs, self.steps)


@dataclass
class Linear(Supervised):
    """A linear classifier on the frozen backbone, which is in inference mode.

    Source: main_lincls.py, which however keeps the incomplete last batch of an epoch.
    """

    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(
            learning_rate=30.0, weight_decay=0.0, schedule="step", milestones=(0.6, 0.8)
        )
    )


@dataclass
class Finetune(Supervised):
    """Training end to end. Source: v1, section 4.2 (iNaturalist); SimCLR for few labels."""

    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(
            learning_rate=0.025, weight_decay=1e-4, schedule="step", milestones=(0.7, 0.9)
        )
    )
    head_factor: float = option(
        1.0, above=0, help="the classifier's learning rate divided by the backbone's"
    )
    bn_group_size: int | None = option(
        None, at_least=1, help="rows that share BN statistics; none: all rows of a replica"
    )


@dataclass
class Unlabelled:
    """Images without labels."""

    source: str | None = option(
        None, help="address, see moco_tf/data/sources; none: the run's own images"
    )
    data_dir: str | None = option(None, help="folder of prepared TFDS data sets; none: the run's")
    num_examples: int | None = option(
        None, at_least=1, help="records of a tfrecord: source; none counts them"
    )
    recipe: str | None = option(
        None, help="augmentation of the views; none: the run's, moco:v2 without a run"
    )
    image_size_px: int | None = option(None, at_least=1, help="side of the crops; none: the run's")
    resize_px: int | None = option(
        None,
        at_least=1,
        help="short side before a center crop; none: the run's, or 8/7 of the size",
    )
    gallery: int = option(
        4096, at_least=1, help="images among which neighbours are searched, evenly over the source"
    )


@dataclass
class Neighbours:
    """Nearest neighbours of images without labels, alignment and uniformity.

    Source: arXiv:2005.10242, for the last two.
    """

    data: Unlabelled = field(default_factory=Unlabelled)
    queries: int = option(16, at_least=1, help="images whose neighbours are shown")
    shown: int = option(8, at_least=1, help="neighbours shown of each")
    pairs: int = option(1024, at_least=2, help="images of two views, for alignment and uniformity")
    random_init: bool = option(False, help="the same architecture untrained, as the baseline")
    seed: int = option(0, at_least=0, help="seed of new weights and of the views")
    deterministic: bool = option(False, help="bitwise repeatable ops, slower on GPU")
    rows: int = option(128, at_least=1, help="images at a time, over all replicas")


def check_data(config: Task):
    """Checks the rules over several fields of all tasks on labelled images.

    Raises:
        ValueError: with the field, the rule and the value received.
    """
    fraction = config.data.fraction
    require(config, "data.names", lambda v: not v or fraction == 1, "none with a data.fraction")


def check_supervised(config: Supervised):
    """Checks the rules over several fields of the tasks that train; raises as `check_data`."""
    check_optimizer(config)
    require_sgd(config)
    if config.optimizer.schedule == "step" and config.steps is None:
        end = config.epochs
        require(
            config,
            "optimizer.milestones_epochs",
            lambda v: not v or max(v) < end,
            f"below the number of epochs, {end}, or empty for `--config.optimizer.milestones`",
        )
