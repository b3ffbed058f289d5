"""MoCo v1 on uncurated images without labels or end, counted in steps.

Command:  python train.py --config=configs/uncurated.py --workdir=gs://BUCKET/runs/uncurated \
              --config.data.source=tfrecord:gs://BUCKET/images-*.tfrecord
          (give --config.data.num_examples where counting the records is slow)
Cost:     the paper used 64 GPUs
Expected: transfer above ImageNet pre-training in most of the paper's tables 2 to 6
Source:   arXiv:1911.05722, section 4, "Training"
"""

from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


def get_config():
    """1.25M steps of 1024 images, the learning rate times .9 every 62.5k steps."""
    return Config(
        data=Data(source="tfrecord:images-*.tfrecord", recipe="moco:v1"),
        model=Model(head="linear", temperature=0.07, bn_group_size=16),
        optimizer=Optimizer(
            schedule="step", milestones_steps=tuple(range(62_500, 1_250_000, 62_500)), factor=0.9
        ),
        monitor=Monitor(source="off"),
        batch_size=1024,
        steps=1_250_000,
        log_every_steps=100,
    )
