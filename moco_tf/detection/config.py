"""Config of the detection task, checked before any work."""

from dataclasses import dataclass, field

from moco_tf.detection.model.settings import RCNN_SETTINGS
from moco_tf.schema import option, require
from moco_tf.training.config import Optimizer, TransferRun, check_transfer

# Fields that a RetinaNet does not have.
R_CNN = (
    "masks",
    "keypoints",
    "densepose",
    "width_divisor",
    "before_nms",
    "after_nms",
    "regions",
    "box_beta",
    "sampling_ratio",
    "roi_aligned",
)
MULTIPLE_PX = 32  # padded sizes are multiples of it, as the smallest maps are 1/32


@dataclass
class Data:
    """Annotated images; moco_tf/detection/data has a reader for each form of address."""

    train: str | None = option(None, help="address of the training images; must be given")
    test: str | None = option(None, help="address of the test images; must be given")
    recipe: str | None = option(
        None, help="address whose normalization is used; none: the run's, moco:v2 without a run"
    )
    short_px: tuple[int, ...] = option(
        (640, 672, 704, 736, 768, 800),
        at_least=1,
        min_items=1,
        help="short sides; each batch draws one",
    )
    test_short_px: int = option(800, at_least=1, help="short side of the test images")
    longest_px: int = option(1333, at_least=1, help="limit of the long side")
    pad_px: int = option(
        MULTIPLE_PX,
        at_least=1,
        multiple_of=MULTIPLE_PX,
        help="padded sizes are multiples of it; a larger one gives fewer sizes",
    )
    square_px: int | None = option(
        None,
        at_least=1,
        multiple_of=MULTIPLE_PX,
        help="side of the square that all images are padded to, needed on TPU; none: no square",
    )
    max_objects: int | None = option(
        None,
        at_least=1,
        help="limit of objects in a training image; none: as many as the fullest image has",
    )
    repeat_threshold: float = option(
        0.0, at_least=0, below=1, help="images of classes in a smaller share of images are repeated"
    )
    check_images: bool = option(
        True, help="decode all images before training, which takes minutes for COCO"
    )
    keep_empty: bool = option(
        False, help="train on images without objects too, as background; false leaves them out"
    )
    keypoint_pairs: tuple[str, ...] = option(
        (), help="keypoints that swap in a mirrored image, NAME:NAME; those not given go by name"
    )
    keypoint_sigmas: tuple[float, ...] | None = option(
        None,
        above=0,
        help="OKS' constant of each keypoint; none: COCO's for its 17, else PCK is the score",
    )


@dataclass
class Detection(TransferRun):
    """An R-CNN or a RetinaNet, trained end to end. Source: v1, section 4.2, appendix."""

    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(
        default_factory=lambda: Optimizer(
            learning_rate=0.02,
            reference_batch=16,
            schedule="step",
            milestones_steps=(60_000, 80_000),
            warmup_steps=1000,
        )
    )
    architecture: str = option(
        "fpn", choices=tuple(RCNN_SETTINGS), help="R-CNNs see network.py; retinanet.py"
    )
    masks: bool = option(False, help="add a mask head")
    keypoints: bool = option(False, help="add a keypoint head")
    densepose: bool = option(False, help="add a DensePose head")
    densepose_files: str | None = option(
        None, help="folder of licensed files, see densepose_surface.py; none: no flips"
    )
    metric: str = option(
        "coco",
        choices=("coco", "voc", "lvis", "cityscapes"),
        help="benchmark whose average precision is computed",
    )
    frozen_bn: bool = option(
        False, help="BN as constants, as in LVIS' supervised control; MoCo's others train it"
    )
    width_divisor: int = option(
        1, at_least=1, at_most=32, help="divides the widths of pyramid and heads, for small tasks"
    )
    before_nms: tuple[int, int] | None = option(
        None, at_least=1, help="proposals of a level (training, test); none: the architecture's"
    )
    after_nms: tuple[int, int] | None = option(
        None, at_least=1, help="proposals of an image (training, test); none: the architecture's"
    )
    regions: int = option(512, at_least=4, help="regions of an image to train the heads on")
    detections: int = option(100, at_least=1, help="limit of detections in an image")
    lowest_score: float = option(0.05, at_least=0, below=1, help="detections have a higher score")
    box_beta: float = option(
        0.0, at_least=0, help="beta of the box head's smooth L1 loss; 0 is the L1 loss"
    )
    sampling_ratio: int | None = option(
        None, at_least=1, help="RoIAlign's samples along a side of a bin; none: adaptive"
    )
    roi_aligned: bool = option(
        True, help="detectron2's ROIAlignV2, which shifts boxes by half a cell; false: ROIAlign"
    )
    steps: int = option(90_000, at_least=1, help="length of the run and of the schedule")
    bn_statistics_batches: int = option(
        200, at_least=1, help="batches on which BN's statistics are estimated for the last test"
    )
    test_every_steps: int = option(
        10_000, at_least=1, help="for the curve; at the end it is always tested"
    )


def check(config: Detection):
    """Checks every field.

    Raises:
        ValueError: with the field, the rule and the value received.
    """
    check_transfer(config, Detection, "detection")
    for name in ("data.train", "data.test"):
        require(config, name, bool, "an address, such as coco:IMAGES_DIR,JSON")
    longest = config.data.longest_px
    require(
        config,
        "data.square_px",
        lambda v: v is None or v >= longest,
        f"a multiple of {MULTIPLE_PX} that is at least data.longest_px={longest}, or none",
    )
    _check_heads(config)
    _check_metric(config)


def _check_heads(config):
    most = (config.after_nms or RCNN_SETTINGS[config.architecture].after_nms)[0]
    require(
        config,
        "regions",
        lambda v: v <= most,
        f"at least 4, and at most the proposals that they are drawn from, {most}",
    )
    if config.architecture == "retinanet":
        for name in R_CNN:
            default = getattr(Detection(), name)
            rule = f"left at {default!r} with architecture=retinanet, which is no R-CNN"
            require(config, name, lambda v, default=default: v == default, rule)
    if config.architecture == "c4":
        rule = "false with architecture=c4, whose regions are too small"
        for name in ("keypoints", "densepose"):
            require(config, name, lambda v: not v, rule)
    if not config.densepose:
        require(config, "densepose_files", lambda v: not v, "none without densepose")


def _check_metric(config):
    if config.metric != "coco":
        rule = f"false with metric={config.metric}"
        for name in ("keypoints", "densepose"):
            require(config, name, lambda v: not v, rule)
    if config.metric == "cityscapes":
        require(config, "masks", bool, "true with metric=cityscapes, which scores masks")
    if config.metric == "voc":
        require(config, "masks", lambda v: not v, "false with metric=voc, which scores boxes")
