"""Fine-tuning end to end, after the recipe for iNaturalist 2018.

Command:  python evaluate.py --task=finetune --checkpoint=runs/v2 --workdir=runs/v2_inat \
              --config.data.train=folder:inat/train --config.data.test=folder:inat/val
          (from scratch, the control: --config.random_init=true
          --config.optimizer.learning_rate=0.1)
Cost:     100 epochs of supervised training
Expected: iNaturalist 2018, ResNet-50 v1: 65.6 %; supervised 66.1, from scratch 61.8 (published)
Source:   v1, section 4.2.3
"""

from moco_tf.evaluation.config import Finetune


def get_config():
    """lr .025, weight decay 1e-4, batch 256, 100 epochs, x.1 at 70 and 90 %."""
    return Finetune()
