"""The configuration of a segmentation: one typed schema, checked before any work."""

from dataclasses import dataclass, field

from moco_tf.schema import require
from moco_tf.training.checks import check_training
from moco_tf.training.config import Optimizer


@dataclass
class Data:
    """Images with label maps, see moco_tf/segmentation/sources.py."""

    train: str = ""  # address
    test: str = ""  # likewise
    num_classes: int = 0  # of folders:, whose maps number them from 0
    ignored: tuple = ()  # numbers in the maps that are no class, besides 255
    recipe: str = ""  # whose normalisation; "" is the run's, moco:v2 without a run
    crop_px: int = 513  # side of the training crops
    scale_min: float = 0.5  # of the random scale of an image
    scale_max: float = 2.0


@dataclass
class Segmentation:
    """An FCN on the pre-trained backbone, trained end to end. Source: v1, section 4.2."""

    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(
            learning_rate=0.003,
            reference_batch=16,
            schedule="step",
            milestones_steps=(21000, 27000),
        )
    )
    head: str = "fcn"  # or "deeplabv3plus" of keras-cv, which is frozen upstream
    random_init: bool = False  # the same architecture from scratch, as the control
    seed: int = 0
    deterministic: bool = False  # bitwise repeatable ops, slower on GPU
    batch_size: int = 16  # images, over all replicas
    steps: int = 30_000
    stop_after_steps: int = 0  # end early, with the schedule of the whole run; 0 does not
    test_every_steps: int = 5000  # for the curve; at the end it is always tested
    test_batch_size: int = 8  # images, over all replicas
    test_scales: tuple = (1.0,)  # of the test images; the mean of the probabilities decides
    test_flip: bool = False  # also mirrored
    log_every_steps: int = 20
    checkpoint_every_steps: int = 1000
    epochs: int = 0  # always 0: the run is counted in steps


def check(config):
    """Checks every field.

    Raises:
        ValueError: naming the field, what must hold, and the value.
    """
    check_training(config, Segmentation, "segmentation")
    for name in ("data.crop_px", "data.scale_min"):
        require(config, name, lambda v: v > 0, "positive")
    require(config, "data.num_classes", lambda v: v >= 0, "zero or more")
    require(config, "head", lambda v: v in ("fcn", "deeplabv3plus"), "fcn or deeplabv3plus")
    for name in ("data.train", "data.test"):
        require(config, name, bool, "an address, such as voc:VOCdevkit/VOC2012:train_aug")
    low = config.data.scale_min
    rule = f"at least data.scale_min, {low}, and below 100"
    require(config, "data.scale_max", lambda v: low <= v < 100, rule)
    require(config, "data.num_classes", lambda v: v < 256, "below 256")
    require(
        config,
        "data.ignored",
        lambda v: all(type(x) is int and 0 <= x < 256 for x in v),
        "whole numbers below 256",
    )
    require(
        config,
        "test_scales",
        lambda v: len(v) > 0 and all(type(x) in (int, float) and 0 < x < 100 for x in v),
        "positive numbers below 100, at least one",
    )
