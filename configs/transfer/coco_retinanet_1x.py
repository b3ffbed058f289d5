"""Detection on COCO in one stage: RetinaNet, R50-FPN, 1x schedule.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/coco_retinanet_1x.py --workdir=runs/v2_coco_retinanet_1x
          (controls: from scratch, --config.random_init=true; of supervised weights,
          --checkpoint=FILE)
Data:     a folder coco/ with train2017/, val2017/ and annotations/
Cost:     90,000 steps of 16 images of 800 px; not run here
Expected: no published number of MoCo
Source:   arXiv:1708.02002; detectron2's Base-RetinaNet.yaml and retinanet_R_50_FPN_1x.yaml. Its box
          AP of 37.4 % is of supervised weights with frozen BN: --checkpoint=FILE
          --config.frozen_bn=true. keras-cv's network, frozen upstream (0.9.0)
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config():
    """lr .01 for 16 images, x.1 after 60,000 and 80,000 steps."""
    return Detection(
        data=Data(
            train="coco:coco/train2017,coco/annotations/instances_train2017.json",
            test="coco:coco/val2017,coco/annotations/instances_val2017.json",
        ),
        optimizer=Optimizer(
            learning_rate=0.01,
            reference_batch=16,
            schedule="step",
            milestones_steps=(60_000, 80_000),
            warmup_steps=1000,
        ),
        architecture="retinanet",
    )
