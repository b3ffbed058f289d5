"""Detection and instance segmentation on COCO: Mask R-CNN, R50-C4, 2x schedule.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/coco_mask_rcnn_c4_2x.py --workdir=runs/v2_coco_c4_2x
          (controls: from scratch, --config.random_init=true; of supervised weights,
          --checkpoint=FILE --config.frozen_bn=true)
Data:     a folder coco/ with train2017/, val2017/ and annotations/
Cost:     180,000 steps of 16 images of 800 px; not run here
Expected: box AP 40.7 %, mask AP 35.4 % (published, MoCo v1 on ImageNet; supervised
          40.0 and 34.7)
Source:   MoCo v1, section 4.2 and appendix; detectron2's configs of the same name
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config():
    """lr .02 for 16 images, x.1 after 120,000 and 160,000 steps."""
    return Detection(
        data=Data(
            train="coco:coco/train2017,coco/annotations/instances_train2017.json",
            test="coco:coco/val2017,coco/annotations/instances_val2017.json",
        ),
        optimizer=Optimizer(
            learning_rate=0.02,
            reference_batch=16,
            schedule="step",
            milestones_steps=(120_000, 160_000),
            warmup_steps=1000,
        ),
        architecture="c4",
        masks=True,
        steps=180_000,
    )
