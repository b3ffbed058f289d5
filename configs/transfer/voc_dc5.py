"""Detection on PASCAL VOC 07+12: Faster R-CNN, R50-dilated-C5.

Command:  python evaluate.py --task=detection --checkpoint=runs/v2 \
              --config=configs/transfer/voc_dc5.py --workdir=runs/v2_voc_dc5
          (controls: from scratch, --config.random_init=true; of supervised weights,
          --checkpoint=FILE)
Data:     a folder VOCdevkit/ with VOC2007/ (trainval and test) and VOC2012/
Cost:     24,000 steps of 16 images of 800 px; not run here
Expected: the paper has numbers of it, not noted here; those of C4 are in voc_c4.py
Source:   MoCo v1, section 4.2 and appendix A.1, R50-dilated-C5; the schedule is that of voc_c4.py
"""

from moco_tf.detection.config import Data, Detection
from moco_tf.training.config import Optimizer


def get_config():
    """lr .02 for 16 images, x.1 after 18,000 and 22,000 steps."""
    return Detection(
        data=Data(
            train="voc:VOCdevkit/VOC2007:trainval+VOCdevkit/VOC2012:trainval",
            test="voc:VOCdevkit/VOC2007:test",
            short_px=tuple(range(480, 801, 32)),
        ),
        optimizer=Optimizer(
            learning_rate=0.02,
            reference_batch=16,
            schedule="step",
            milestones_steps=(18_000, 22_000),
            warmup_steps=100,
        ),
        architecture="dc5",
        metric="voc",
        steps=24_000,
    )
