"""Quickstart: MoCo v2 on generated images of shapes, nothing to download.

Command:  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
Cost:     under 3 minutes on two CPU cores
Expected: kNN accuracy 54 %, the untrained encoder 21.7 % (chance 12.5 %)
Source:   configs/moco_v2.py scaled down; temperature, rate and symmetric loss for speed
"""

from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


def get_config():
    """A narrow ResNet-18 on 32 px images of eight shapes."""
    return Config(
        data=Data(source="synthetic:shapes", recipe="moco:v2", image_size_px=32),
        model=Model(
            backbone="resnet:resnet18",
            stem="cifar",
            width=16,
            head="mlp",
            dim=64,
            queue_size=1024,
            momentum=0.99,
            temperature=0.1,
            symmetric=True,
            bn_group_size=32,
        ),
        optimizer=Optimizer(learning_rate=0.12, weight_decay=5e-4),
        monitor=Monitor(every_epochs=2, resize_px=32),
        batch_size=128,
        epochs=10,
        log_every_steps=8,
        checkpoint_every_steps=160,
    )
