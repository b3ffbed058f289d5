"""Detection of blood cells on BCCD, 640 x 480 px: Faster R-CNN C4 in a CPU's size.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/bccd_c4.py --workdir=runs/v2_bccd
          (from scratch, the control: --config.random_init=true)
Data:     the folder BCCD/ of github.com/Shenggan/BCCD_Dataset, laid out like VOC2007/
Cost:     600 steps, 25 minutes on two CPU cores beside other work, with a ResNet-18 of width 16
Expected: AP50 71.1, AP 41.9, AP75 48.8 % of 72 test images, AP50 69.3 % after 450 steps, 0.0 at
          the start; of white cells AP50 97.7, red 79.2, platelets 36.2 %
Source:   the recipe of voc_c4.py, smaller
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config():
    """lr .02 for 4 images of 320 px, x.1 after 70 and 90 % of the steps."""
    return Detection(
        data=Data(
            train="voc:BCCD:train",
            test="voc:BCCD:test",
            short_px=(288, 320, 352),
            test_short_px=320,
        ),
        optimizer=Optimizer(
            learning_rate=0.02,
            reference_batch=4,
            schedule="step",
            milestones_steps=(420, 540),
            warmup_steps=50,
        ),
        architecture="c4",
        metric="voc",
        before_nms=(2000, 1000),
        after_nms=(500, 200),
        regions=64,
        sampling_ratio=2,
        batch_size=4,
        steps=600,
        bn_statistics_batches=20,
        test_every_steps=150,
        test_batch_size=2,
        checkpoint_every_steps=150,
    )
