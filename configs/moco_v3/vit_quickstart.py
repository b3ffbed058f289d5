"""Quickstart of MoCo v3 with a vision transformer: generated images of shapes.

Command:  python train.py --config=configs/moco_v3/vit_quickstart.py --workdir=runs/vit_quickstart
Cost:     4 minutes and 33 seconds on two CPU cores
Expected: kNN accuracy 60.2 %, the untrained encoder 41.4 % (8 classes, chance 14.3 %)
Source:   configs/moco_v3/vit.py scaled down as configs/quickstart.py; momentum, temperature and
          rate for a short run of batch 128
"""

from moco_tf.pretraining.config import Config, Data, Model, Monitor
from moco_tf.training.config import Optimizer


def get_config():
    """Four blocks, 96 channels wide, on 16 patches of 8 px."""
    return Config(
        data=Data(
            source="synthetic:shapes",
            recipe="moco_v3:resnet_q",
            recipe_k="moco_v3:resnet_k",
            image_size_px=32,
        ),
        model=Model(
            mechanism="moco_v3",
            mechanism_options=("predictor_bn=true",),
            backbone="vit:vit_small",
            backbone_options=("depth=4", "num_heads=4", "patch_px=8"),
            width=96,
            head="mlp_bn3",
            hidden=256,
            dim=64,
            momentum=0.95,
            temperature=0.1,
            symmetric=True,
            shuffle=False,
        ),
        optimizer=Optimizer(
            name="adamw",
            learning_rate=2e-3,
            reference_batch=128,
            weight_decay=0.1,
            schedule="cosine_after_warmup",
            warmup_epochs=1.0,
            warmup_factor=0.0,
        ),
        monitor=Monitor(every_epochs=4, resize_px=32),
        batch_size=128,
        epochs=20,
        log_every_steps=8,
        checkpoint_every_steps=160,
    )
