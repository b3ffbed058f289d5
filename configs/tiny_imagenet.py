"""MoCo v1 on Tiny ImageNet, 64 px: a ResNet-18 that a CPU can train.

Command:  python train.py --config=configs/tiny_imagenet.py --workdir=runs/tiny \
              --config.data.source=folder:DIR/train
Data:     a folder of class folders, train/ beside val/ (CS231n's archive has its val images in
          one folder: sort them by val_annotations.txt)
Cost:     54 steps an epoch for 20 of the 200 classes, 20 minutes for 40 epochs on two CPU cores
Expected: 40 epochs of 20 classes (--config.epochs=40): kNN 27.8 %, the untrained encoder 20.7 %;
          with v2's head it is at 21.7 % after 20 of 30 epochs, here at 22.1 % after 20 of 40
Source:   configs/cifar10_demo.py
"""

from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


def get_config():
    """100 epochs."""
    return Config(
        data=Data(source="folder:tiny-imagenet/train", recipe="moco:cifar10", image_size_px=64),
        model=Model(
            backbone="resnet:resnet18",
            head="linear",
            queue_size=2048,
            momentum=0.99,
            temperature=0.1,
            bn_group_size=32,
        ),
        optimizer=Optimizer(learning_rate=0.12, weight_decay=5e-4),
        monitor=Monitor(every_epochs=10, resize_px=64),
        batch_size=128,
        epochs=100,
        checkpoint_every_steps=270,
    )
