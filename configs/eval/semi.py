"""Semi-supervised ImageNet: fine-tuning on 1 % of the labels, SimCLR's subset.

Command:  python evaluate.py --task=finetune --config=configs/eval/semi.py \
              --checkpoint=runs/v2 --workdir=runs/v2_1pct
          (10 %: --config.data.train=tfds:imagenet2012_subset/10pct:train --config.epochs=20;
          folders and data in memory: --config.data.fraction=0.01 takes a share of each class,
          seeded, and --config.data.names=FILE those that a file names)
Data:     TFDS' imagenet2012_subset and imagenet2012, which need ImageNet's archives
Cost:     60 epochs of 12,811 images
Expected: above --config.random_init=true; not run here
Source:   the subsets of SimCLR (arXiv:2002.05709); a higher rate for the new layer, as is usual
"""

from moco_tf.evaluation.config import Data, Finetune
from moco_tf.training.config import Optimizer


def get_config():
    """lr .01 for the backbone and 100 times that for the classifier, cosine."""
    return Finetune(
        data=Data(train="tfds:imagenet2012_subset/1pct:train", test="tfds:imagenet2012:validation"),
        optimizer=Optimizer(learning_rate=0.01, weight_decay=0.0, schedule="cosine"),
        head_factor=100.0,
        epochs=60,
    )
