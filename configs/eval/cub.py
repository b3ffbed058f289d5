"""Fine-grained classification of CUB-200-2011 birds, end to end.

Command:  python evaluate.py --task=finetune --config=configs/eval/cub.py \
              --checkpoint=runs/v2 --workdir=runs/v2_cub
          (from scratch, the control: --config.random_init=true
          --config.optimizer.learning_rate=0.1)
Data:     `tfds build caltech_birds2011`, 5,994 training images
Cost:     100 epochs of 5,994 images
Expected: above the control; not run here
Source:   the recipe of finetune.py at a batch for few images
"""

from moco_tf.evaluation.config import Data, Finetune
from moco_tf.training.config import Optimizer


def get_config():
    """lr .025 for 256 images, 100 epochs of batch 64."""
    return Finetune(
        data=Data(train="tfds:caltech_birds2011:train", test="tfds:caltech_birds2011:test"),
        optimizer=Optimizer(
            learning_rate=0.025, weight_decay=1e-4, schedule="step", milestones=(0.7, 0.9)
        ),
        batch_size=64,
    )
