"""Instance segmentation on Cityscapes: Mask R-CNN, R50-FPN.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/cityscapes_mask_rcnn_fpn.py --workdir=runs/v2_cityscapes
          (controls: from scratch, --config.random_init=true; of supervised weights,
          --checkpoint=FILE)
Data:     a folder cityscapes/ with leftImg8bit/ and gtFine/
Cost:     24,000 steps of 8 images of 1024 px; not run here
Expected: mask AP50 59.3 % (published, MoCo v1 on ImageNet; supervised 59.6), by Cityscapes' own
          evaluation; boxes are scored as COCO's
Source:   MoCo v1, section 4.2; detectron2's Cityscapes/mask_rcnn_R_50_FPN.yaml
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config():
    """lr .01 for 8 images, x.1 after 18,000 steps."""
    return Detection(
        data=Data(
            train="cityscapes:cityscapes:train",
            test="cityscapes:cityscapes:val",
            short_px=tuple(range(800, 1025, 32)),
            test_short_px=1024,
            longest_px=2048,
        ),
        optimizer=Optimizer(
            learning_rate=0.01,
            reference_batch=8,
            schedule="step",
            milestones_steps=(18_000,),
            warmup_steps=1000,
        ),
        masks=True,
        metric="cityscapes",
        batch_size=8,
        steps=24_000,
    )
