"""MoCo on photos of your own, on a CPU: a narrow ResNet-18 without down-sampling in its stem.

Command:  python -m moco_tf train PHOTOS
          which is train.py --config=configs/own_images.py --minutes=20
              --config.data.source=folder:PHOTOS --workdir=runs/PHOTOS
Data:     a folder of images
Cost:     --minutes, 20 if not given, which choose batch, image size, epochs and others
Expected: docs/own_photos.md
Source:   configs/cifar10_demo.py, with a quarter of the channels: in the same time a wider network
          sees too few images, and the stem for ImageNet sees too little of small ones
"""

from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


def get_config():
    """200 epochs, if no minutes are given."""
    return Config(
        data=Data(recipe="moco:cifar10", image_size_px=32),
        model=Model(
            backbone="resnet:resnet18",
            stem="cifar",
            width=16,
            head="linear",
            queue_size=2048,
            momentum=0.99,
            temperature=0.1,
            bn_group_size=32,
        ),
        optimizer=Optimizer(learning_rate=0.12, weight_decay=5e-4),
        monitor=Monitor(every_epochs=10),
        batch_size=128,
        epochs=200,
    )
