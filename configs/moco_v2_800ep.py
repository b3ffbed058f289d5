"""MoCo v2 on ImageNet, ResNet-50, 800 epochs.

Command:  python train.py --config=configs/moco_v2_800ep.py --workdir=runs/v2_800
Cost:     four times configs/moco_v2.py
Expected: linear classification top-1 71.1 % (published)
Source:   arXiv:2003.04297, table 1
"""

from moco_tf.pretraining.config import Config, Data, Model


def get_config():
    """As configs/moco_v2.py, with a cosine of 800 epochs."""
    return Config(
        data=Data(source="tfds:imagenet2012", recipe="moco:v2"),
        model=Model(head="mlp", temperature=0.2, bn_group_size=32),
        epochs=800,
        log_every_steps=50,
    )
