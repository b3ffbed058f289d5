"""The configuration of a detection: one typed schema, checked before any work."""

from dataclasses import dataclass, field

from moco_tf.detection.model.detector import RCNN_SETTINGS
from moco_tf.schema import require
from moco_tf.training.checks import check_training
from moco_tf.training.config import Optimizer

METRICS = ("coco", "voc", "lvis", "cityscapes")
# What only R-CNNs have: other heads, other widths, proposals and regions.
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
)
MULTIPLE_PX = 32  # of the sizes of padded images, whose smallest maps are 1/32


@dataclass
class Data:
    """Annotated images, see coco.py, voc.py, lvis.py and cityscapes.py in this folder."""

    train: str = ""  # address
    test: str = ""  # likewise
    recipe: str = ""  # whose normalisation; "" is the run's, moco:v2 without a run
    short_px: tuple = (640, 672, 704, 736, 768, 800)  # short sides, one of them for each batch
    test_short_px: int = 800
    longest_px: int = 1333  # long sides are at most this
    pad_px: int = 32  # padded sizes are multiples of it; of a larger one there are fewer
    square_px: int = 0  # all images padded to one square, on TPU needed; 0 does not
    max_objects: int = 100  # objects of an image at most, in training
    repeat_threshold: float = 0.0  # images of classes in a smaller share of all come more often
    check_images: bool = True  # decode all of them before training, minutes for COCO


@dataclass
class Detection:
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
    architecture: str = "fpn"  # or "c4", "dc5": see network.py; "retinanet": see retinanet.py
    masks: bool = False  # with a mask head
    keypoints: bool = False  # with a keypoint head
    densepose: bool = False  # with DensePose's head
    densepose_files: str = ""  # folder of files with a licence, see densepose_surface.py
    metric: str = "coco"  # or "voc", "lvis", "cityscapes": whose average precision
    frozen_bn: bool = False  # BN as constants, as supervised networks are mostly fine-tuned
    random_init: bool = False  # the same architecture from scratch, as the control
    width_divisor: int = 1  # divides the widths of the pyramid and the heads, for small tasks
    before_nms: tuple = ()  # proposals of a level: (training, test); () is the architecture's own
    after_nms: tuple = ()  # of an image, likewise
    regions: int = 512  # of an image that the heads are trained on
    detections: int = 100  # of an image at most
    lowest_score: float = 0.05  # detections need more
    box_beta: float = 0.0  # of the box head's smooth L1 loss, 0 is L1
    sampling_ratio: int = 0  # of RoIAlign, samples along a side of a bin; 0 is adaptive
    seed: int = 0
    deterministic: bool = False  # bitwise repeatable ops, slower on GPU
    batch_size: int = 16  # images, over all replicas
    steps: int = 90_000
    stop_after_steps: int = 0  # end early, with the schedule of the whole run; 0 does not
    bn_statistics_batches: int = 200  # BN's statistics are estimated on, before the last test
    test_every_steps: int = 10_000  # for the curve; at the end it is always tested
    test_batch_size: int = 8  # images, over all replicas
    log_every_steps: int = 20
    checkpoint_every_steps: int = 1000
    epochs: int = 0  # always 0: the run is counted in steps


def check(config):
    """Checks every field.

    Raises:
        ValueError: naming the field, what must hold, and the value.
    """
    check_training(config, Detection, "detection")
    for name in (
        "data.test_short_px",
        "data.longest_px",
        "data.max_objects",
        "width_divisor",
        "detections",
        "bn_statistics_batches",
    ):
        require(config, name, lambda v: v > 0, "positive")
    for name in ("sampling_ratio", "box_beta"):
        require(config, name, lambda v: v >= 0, "zero or more")
    for name, valid in (("architecture", tuple(RCNN_SETTINGS)), ("metric", METRICS)):
        require(config, name, lambda v, valid=valid: v in valid, f"one of {', '.join(valid)}")
    _check_data(config)
    _check_heads(config)


def _check_data(config):
    for name in ("data.train", "data.test"):
        require(config, name, bool, "an address, such as coco:IMAGES_DIR,JSON")
    require(config, "data.repeat_threshold", lambda v: 0 <= v < 1, "in [0, 1)")
    rule = "positive whole numbers, at least one"
    require(config, "data.short_px", lambda v: len(v) > 0 and _whole(v), rule)
    rule = f"a positive multiple of {MULTIPLE_PX}"
    require(config, "data.pad_px", lambda v: v > 0 and v % MULTIPLE_PX == 0, rule)
    longest = config.data.longest_px
    require(
        config,
        "data.square_px",
        lambda v: v == 0 or (v >= longest and v % MULTIPLE_PX == 0),
        f"0, or a multiple of {MULTIPLE_PX} that is at least data.longest_px={longest}",
    )


def _check_heads(config):
    require(config, "lowest_score", lambda v: 0 <= v < 1, "in [0, 1)")
    require(config, "width_divisor", lambda v: v <= 32, "at most 32")
    for name in ("before_nms", "after_nms"):
        rule = "empty, or two positive whole numbers: (training, test)"
        require(config, name, lambda v: not v or (len(v) == 2 and _whole(v)), rule)
    most = (config.after_nms or RCNN_SETTINGS[config.architecture].after_nms)[0]
    require(
        config,
        "regions",
        lambda v: 4 <= v <= most,
        f"at least 4, and at most the proposals that they are drawn from, {most}",
    )
    if config.architecture == "retinanet":
        for name in R_CNN:
            usual = getattr(Detection(), name)
            rule = f"left at {usual!r} with architecture=retinanet, which is no R-CNN"
            require(config, name, lambda v, usual=usual: v == usual, rule)
    if config.architecture == "c4":
        rule = "false with architecture=c4, whose regions are too small"
        for name in ("keypoints", "densepose"):
            require(config, name, lambda v: not v, rule)
    if config.metric != "coco":
        rule = f"false with metric={config.metric}"
        for name in ("keypoints", "densepose"):
            require(config, name, lambda v: not v, rule)
    if not config.densepose:
        require(config, "densepose_files", lambda v: not v, "empty without densepose")
    if config.metric == "cityscapes":
        require(config, "masks", bool, "true with metric=cityscapes, which is of masks")
    if config.metric == "voc":
        require(config, "masks", lambda v: not v, "false with metric=voc, which is of boxes")


def _whole(values):
    return all(type(v) is int and v > 0 for v in values)
