"""Semantic segmentation on Cityscapes, the paper's FCN.

Command:  python evaluate.py --task=segmentation --config=configs/transfer/cityscapes_fcn.py \
              --checkpoint=runs/v2 --workdir=runs/v2_cityscapes
          (from scratch, the control: --config.random_init=true)
Data:     a folder with Cityscapes' leftImg8bit/ and gtFine/
Cost:     90,000 steps of 16 crops of 769 px; not run here
Expected: mIoU 75.3 % (published, MoCo v1 on ImageNet; supervised 74.6 %)
Source:   MoCo v1, section 4.2 and appendix
"""

from moco_tf.segmentation.config import Data, Segmentation
from moco_tf.training.config import Optimizer


def get_config():
    """lr .01, x.1 after 70 and 90 % of the steps."""
    return Segmentation(
        data=Data(
            train="cityscapes:cityscapes:train", test="cityscapes:cityscapes:val", crop_px=769
        ),
        optimizer=Optimizer(
            learning_rate=0.01,
            reference_batch=16,
            schedule="step",
            milestones_steps=(63000, 81000),
        ),
        steps=90_000,
        test_batch_size=2,
    )
