"""Detection and instance segmentation on COCO: Mask R-CNN, R50-FPN, 1x and 2x schedule.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/coco_mask_rcnn_fpn.py --workdir=runs/v2_coco_fpn
          (2x: --config=configs/transfer/coco_mask_rcnn_fpn.py:2x; controls: from scratch,
          --config.random_init=true; of supervised weights, --checkpoint=FILE)
Data:     a folder coco/ with train2017/, val2017/ and annotations/
Cost:     90,000 steps (1x) or 180,000 (2x) of 16 images of 800 px; not run here
Expected: 1x: box AP 38.5 %, mask AP 35.1 % (published, MoCo v1 on ImageNet; supervised
          38.9 and 35.4); 2x: box AP 40.8 %, mask AP 36.9 % (supervised 40.6 and 36.8)
Source:   MoCo v1, section 4.2 and appendix; detectron2's configs of the same name
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer

SCHEDULES = {"1x": (60_000, 80_000, 90_000), "2x": (120_000, 160_000, 180_000)}


def get_config(schedule="1x"):
    """lr .02 for 16 images, x.1 at two thirds and eight ninths of the steps."""
    *milestones, steps = SCHEDULES[schedule]
    return Detection(
        data=Data(
            train="coco:coco/train2017,coco/annotations/instances_train2017.json",
            test="coco:coco/val2017,coco/annotations/instances_val2017.json",
        ),
        optimizer=Optimizer(
            learning_rate=0.02,
            reference_batch=16,
            schedule="step",
            milestones_steps=tuple(milestones),
            warmup_steps=1000,
        ),
        architecture="fpn",
        masks=True,
        steps=steps,
    )
