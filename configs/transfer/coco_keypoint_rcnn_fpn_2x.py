"""Keypoints of persons on COCO: Keypoint R-CNN, R50-FPN, 2x schedule.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/coco_keypoint_rcnn_fpn_2x.py --workdir=runs/v2_keypoints
          (controls: from scratch, --config.random_init=true; of supervised weights,
          --checkpoint=FILE)
Data:     a folder coco/ with train2017/, val2017/ and annotations/
Cost:     180,000 steps of 16 images of 800 px; not run here
Expected: keypoint AP 66.8 % (published, MoCo v1 on ImageNet; supervised 65.8)
Source:   MoCo v1, section 4.2 and appendix; detectron2's Base-Keypoint-RCNN-FPN.yaml
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config():
    """1500 proposals of an image to draw from, a smooth L1 loss of boxes; lr x.1 after 120,000 and
    160,000 steps."""
    return Detection(
        data=Data(
            train="coco:coco/train2017,coco/annotations/person_keypoints_train2017.json",
            test="coco:coco/val2017,coco/annotations/person_keypoints_val2017.json",
        ),
        optimizer=Optimizer(
            learning_rate=0.02,
            reference_batch=16,
            schedule="step",
            milestones_steps=(120_000, 160_000),
            warmup_steps=1000,
        ),
        keypoints=True,
        after_nms=(1500, 1000),
        box_beta=0.5,
        steps=180_000,
    )
