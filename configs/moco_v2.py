"""MoCo v2 on ImageNet, ResNet-50, 200 or 800 epochs.

Command:  python train.py --config=configs/moco_v2.py --workdir=runs/v2
          (800 epochs: --config=configs/moco_v2.py:800ep)
Data:     TFDS imagenet2012; for folders --config.data.source=folder:IMAGENET/train
Cost:     53 hours on 8 V100 (the paper's, with the official code); 800 epochs four times as much
Expected: linear classification top-1 67.5 +- .1 %, after 800 epochs 71.1 % (published)
Source:   arXiv:2003.04297, table 1; main_moco.py --mlp --moco-t 0.2 --aug-plus --cos
"""

from moco_tf.pretraining.config import Config, Data, Model


def get_config(length="200ep"):
    """Batch 256 in BN groups of 32: 8 GPUs, or one device that simulates them."""
    return Config(
        data=Data(source="tfds:imagenet2012", recipe="moco:v2"),
        model=Model(head="mlp", temperature=0.2, bn_group_size=32),
        epochs={"200ep": 200, "800ep": 800}[length],
        log_every_steps=50,
    )
