"""Quickstart: MoCo v2 on generated images of cloth, nothing to download.

Command:  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
Cost:     under 3 minutes on two CPU cores
Expected: kNN accuracy 82 %, the untrained encoder 34 % (chance 18.6 %); a loss of 1.3, by chance
          6.2; pretext top-1 72 %, effective rank 19
Source:   configs/moco_v2.py scaled down; a lower temperature and less augmentation, for speed
"""

from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


def get_config():
    """A narrow ResNet-18 on 32 px images of cloth in six colors."""
    return Config(
        data=Data(source="synthetic:fabrics", recipe="synthetic:fabrics", image_size_px=32),
        model=Model(
            backbone="resnet:resnet18",
            backbone_options=("zero_init_residual=true",),
            stem="cifar",
            width=8,
            head="mlp",
            dim=128,
            queue_size=512,
            momentum=0.99,
            temperature=0.08,
            bn_group_size=32,
        ),
        optimizer=Optimizer(learning_rate=0.05, weight_decay=5e-4),
        monitor=Monitor(every_epochs=5, resize_px=32, neighbours=20),
        batch_size=64,
        epochs=20,
        log_every_steps=16,
        checkpoint_every_steps=640,
    )
