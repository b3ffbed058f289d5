"""Quickstart of MoCo v3: generated images of shapes, nothing to download.

Command:  python train.py --config=configs/moco_v3/quickstart.py --workdir=runs/v3_quickstart
Cost:     4 minutes and 13 seconds on two CPU cores
Expected: kNN accuracy 52.7 %, the untrained encoder 21.7 % (8 classes, chance 14.3 %)
Source:   configs/moco_v3/resnet50.py scaled down as configs/quickstart.py; temperature and
          optimizer for a batch of 128
"""

from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


def get_config():
    """A narrow ResNet-18 on 32 px images of eight shapes."""
    return Config(
        data=Data(
            source="synthetic:shapes",
            recipe="moco_v3:resnet_q",
            recipe_k="moco_v3:resnet_k",
            image_size_px=32,
        ),
        model=Model(
            mechanism="moco_v3",
            backbone="resnet:resnet18",
            backbone_options=("synchronized_bn=true",),
            stem="cifar",
            width=16,
            head="mlp_bn2",
            hidden=256,
            dim=64,
            momentum=0.99,
            temperature=0.2,
            symmetric=True,
            shuffle=False,
        ),
        optimizer=Optimizer(
            learning_rate=0.12,
            weight_decay=5e-4,
            schedule="cosine_after_warmup",
            warmup_epochs=1.0,
            warmup_factor=0.0,
        ),
        monitor=Monitor(every_epochs=2, resize_px=32),
        batch_size=128,
        epochs=10,
        log_every_steps=8,
        checkpoint_every_steps=160,
    )
