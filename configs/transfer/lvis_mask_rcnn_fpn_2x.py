"""Instance segmentation on LVIS v0.5: Mask R-CNN, R50-FPN, 2x schedule.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/lvis_mask_rcnn_fpn_2x.py --workdir=runs/v2_lvis
          (controls: from scratch, --config.random_init=true; of supervised weights,
          --checkpoint=FILE --config.frozen_bn=true)
Data:     COCO's images in coco/, and lvis/ with LVIS' annotations v0.5
Cost:     180,000 steps of 16 images of 800 px; not run here
Expected: mask AP 24.1 % (published, MoCo v1 on ImageNet; supervised 24.4,
          the only published control whose BN is frozen)
Source:   MoCo v1, section 4.2 and appendix; the rest of the recipe as detectron2's
          LVISv0.5-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml, whose schedule is 1x
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config():
    """300 detections of an image, of scores above .0001; classes in less than .1 % of the images
    are seen more often; lr x.1 after 120,000 and 160,000 steps."""
    return Detection(
        data=Data(
            train="lvis:coco,lvis/lvis_v0.5_train.json",
            test="lvis:coco,lvis/lvis_v0.5_val.json",
            repeat_threshold=0.001,
        ),
        optimizer=Optimizer(
            learning_rate=0.02,
            reference_batch=16,
            schedule="step",
            milestones_steps=(120_000, 160_000),
            warmup_steps=1000,
        ),
        masks=True,
        metric="lvis",
        detections=300,
        lowest_score=0.0001,
        steps=180_000,
    )
