"""Settings of the detectors: numbers of proposals, regions and detections."""

import dataclasses

LOWEST_SCORE = 0.05


@dataclasses.dataclass(frozen=True)
class RCNNSettings:
    """Numbers of boxes that an R-CNN proposes, trains on and keeps.

    A RetinaNet uses `detections` and `lowest_score` only.

    Attributes:
        before_nms: proposals of a level before NMS, for (training, test).
        after_nms: proposals of an image after NMS, for (training, test).
        regions: regions of an image to train the heads on, at most a quarter of them positive.
        detections: limit of detections in an image.
        lowest_score: detections have a higher score.
        box_beta: `beta` of the box head's smooth L1 loss; 0 gives plain L1.
        sampling_ratio: RoIAlign's samples along a side of a bin; 0 is adaptive.
        roi_aligned: whether RoIAlign shifts boxes by half a cell, see roi_align.py.
    """

    before_nms: tuple[int, int] = (12000, 6000)
    after_nms: tuple[int, int] = (2000, 1000)
    regions: int = 512
    detections: int = 100
    lowest_score: float = LOWEST_SCORE
    box_beta: float = 0.0
    sampling_ratio: int = 0
    roi_aligned: bool = True


# Source: detectron2's defaults and its Base-RCNN-FPN.yaml.
RCNN_SETTINGS = {
    "c4": RCNNSettings(),
    "dc5": RCNNSettings(),
    "fpn": RCNNSettings(before_nms=(2000, 1000), after_nms=(1000, 1000)),
    "retinanet": RCNNSettings(),
}
