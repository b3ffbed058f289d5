"""MoCo v1 on ImageNet, ResNet-50, 200 epochs.

Command:  python train.py --config=configs/moco_v1.py --workdir=runs/v1
Data:     TFDS imagenet2012; for folders --config.data.source=folder:IMAGENET/train
Cost:     53 hours on 8 V100 (the paper's, with the official code)
Expected: linear classification top-1 60.6 % (published; 60.8 +- .2 over five trials)
Source:   arXiv:1911.05722, section 4; main_moco.py's defaults
"""

from moco_tf.pretraining.config import Config, Data, Model
from moco_tf.training.config import Optimizer


def get_config():
    """Batch 256 in BN groups of 32: 8 GPUs, or one device that simulates them."""
    return Config(
        data=Data(source="tfds:imagenet2012", recipe="moco:v1"),
        model=Model(head="linear", temperature=0.07, bn_group_size=32),
        optimizer=Optimizer(schedule="step", milestones_epochs=(120, 160)),
        epochs=200,
        log_every_steps=50,
    )
