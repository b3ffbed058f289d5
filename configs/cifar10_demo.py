"""The CIFAR-10 demo of the official code: ResNet-18, MoCo v1 with the v2 schedule.

Command:  python train.py --config=configs/cifar10_demo.py --workdir=runs/cifar10
          (for one epoch of it: --config.stop_after_steps=97)
Data:     `tfds build cifar10`, or --config.data.data_dir=DIR of a prepared copy
Cost:     see README; 200 epochs want a GPU
Expected: kNN top-1 82.6 % at 200 epochs, 86.3 at 400, 88.7 at 800 (published); after
          one epoch 31.98 % and mean loss 6.957 (printed log of the notebook)
Source:   moco_cifar10_demo.ipynb of facebookresearch/moco
"""

from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


def get_config():
    """200 epochs, asymmetric loss."""
    return Config(
        data=Data(source="tfds:cifar10", recipe="moco:cifar10", image_size_px=32),
        model=Model(
            backbone="resnet:resnet18",
            stem="cifar",
            head="linear",
            queue_size=4096,
            momentum=0.99,
            temperature=0.1,
            bn_group_size=64,
        ),
        # .06 for the batch of 512, and the epoch counted from 1, as in the notebook.
        optimizer=Optimizer(learning_rate=0.03, weight_decay=5e-4, first_epoch=1),
        monitor=Monitor(features="projection", resize_px=32),
        batch_size=512,
        epochs=200,
        log_every_steps=8,
        checkpoint_every_steps=97,
    )
