"""Config of the segmentation task, checked before any work."""

from dataclasses import dataclass, field

from moco_tf.schema import option, require
from moco_tf.training.config import Optimizer, TransferRun, check_transfer


@dataclass
class Data:
    """Images with label maps, see moco_tf/segmentation/sources.py."""

    train: str | None = option(None, help="address of the training images; must be given")
    test: str | None = option(None, help="address of the test images; must be given")
    num_classes: int | None = option(
        None, at_least=1, below=256, help="number of classes; for folders: only"
    )
    ignored: tuple[int, ...] = option(
        (), at_least=0, below=256, help="numbers in the maps to ignore, besides 255"
    )
    recipe: str | None = option(
        None, help="address whose normalization is used; none: the run's, moco:v2 without a run"
    )
    crop_px: int = option(513, at_least=1, help="side of the training crops")
    scale_min: float = option(0.5, above=0, help="least random scale of an image")
    scale_max: float = option(2.0, above=0, below=100, help="greatest random scale of an image")


@dataclass
class Segmentation(TransferRun):
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
    head: str = option(
        "fcn",
        choices=("fcn", "deeplabv3plus"),
        help="deeplabv3plus is keras-cv's, which is frozen upstream",
    )
    test_scales: tuple[float, ...] = option(
        (1.0,),
        above=0,
        below=100,
        min_items=1,
        help="scales of the test images; probabilities are averaged over them",
    )
    test_flip: bool = option(False, help="also test mirrored images; probabilities are averaged")


def check(config: Segmentation):
    """Checks every field.

    Raises:
        ValueError: with the field, the rule and the value received.
    """
    check_transfer(config, Segmentation, "segmentation")
    for name in ("data.train", "data.test"):
        require(config, name, bool, "an address, such as voc:VOCdevkit/VOC2012:train_aug")
    low = config.data.scale_min
    require(config, "data.scale_max", lambda v: low <= v, f"at least data.scale_min, {low}")
