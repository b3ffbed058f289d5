"""Semantic segmentation on CamVid, 480 x 360 px: the paper's FCN in a CPU's size.

Command:  python evaluate.py --task=segmentation --config=configs/transfer/camvid_fcn.py \
              --checkpoint=runs/v2 --workdir=runs/v2_camvid \
              --config.data.train=camvid:CamVid:train --config.data.test=camvid:CamVid:test
          (from scratch, the control: --config.random_init=true)
Data:     the CamVid/ folder of SegNet's tutorial: train/ and trainannot/, test/ and testannot/
Cost:     5 to 24 minutes of a ResNet-18 on two CPU cores, idle or busy
Expected: on 41 training and 10 test images, with configs/tiny_imagenet.py's ResNet-18: mIoU 30.0 %
          (25 to 35), from scratch 25.3 % (22 to 29); "building" everywhere has 3.1 %
Source:   the recipe of voc_fcn.py, smaller
"""

from moco_tf.segmentation.config import Data, Segmentation
from moco_tf.training.config import Optimizer


def get_config():
    """lr .02 for 8 crops of 256 px, x.1 after 70 and 90 % of the steps."""
    return Segmentation(
        data=Data(train="camvid:CamVid:train", test="camvid:CamVid:test", crop_px=256),
        optimizer=Optimizer(
            learning_rate=0.02,
            reference_batch=8,
            weight_decay=1e-4,
            schedule="step",
            milestones_steps=(280, 360),
        ),
        batch_size=8,
        steps=400,
        test_every_steps=100,
        test_batch_size=2,
    )
