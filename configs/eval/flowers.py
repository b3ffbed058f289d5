"""Fine-grained classification of Oxford Flowers 102, end to end.

Command:  python evaluate.py --task=finetune --config=configs/eval/flowers.py \
              --checkpoint=runs/v2 --workdir=runs/v2_flowers
          (other images: --config.data.train=... --config.data.test=...; from scratch, the
          control: --config.random_init=true --config.optimizer.learning_rate=0.1)
Data:     `tfds build oxford_flowers102`, 1,020 training images
Cost:     100 epochs of 1,020 images
Expected: above the control; on 17 of the classes, 9 training and 3 test images each, with
          configs/tiny_imagenet.py's encoder, no difference: 60.8 % and, with seed 1, 56.9 %
          against 60.8 % (47 to 73; --config.data.image_size_px=128, 3 to 5 minutes)
Source:   the recipe of finetune.py at a batch for few images
"""

from moco_tf.evaluation.config import Data, Finetune
from moco_tf.training.config import Optimizer


def get_config():
    """lr .025 for 256 images, 100 epochs of batch 32."""
    return Finetune(
        data=Data(train="tfds:oxford_flowers102:train", test="tfds:oxford_flowers102:test"),
        optimizer=Optimizer(
            learning_rate=0.025, weight_decay=1e-4, schedule="step", milestones=(0.7, 0.9)
        ),
        batch_size=32,
    )
