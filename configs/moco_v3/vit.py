"""MoCo v3 on ImageNet, vision transformers ViT-S/16 and ViT-B/16, 300 epochs.

Command:  python train.py --config=configs/moco_v3/vit.py --workdir=runs/vit_small
          (ViT-B/16: --config=configs/moco_v3/vit.py:base)
Data:     TFDS imagenet2012; for folders --config.data.source=folder:IMAGENET/train
Cost:     not run here; the official code needs 32 GPUs of 32 GB for ViT-S/16 and the batch of
          4,096 (8 with --config.batch_size=1024), 64 for ViT-B/16
Expected: linear classification top-1 73.2 %, ViT-B/16 76.7 % (published with the code; 76.5 in the
          paper)
Source:   CONFIG.md, main_moco.py and vits.py of facebookresearch/moco-v3 (arXiv:2104.02057)
"""

from moco_tf.pretraining.config import Config, Data, Model
from moco_tf.training.config import Optimizer


def get_config(size="small"):
    """Batch 4096, AdamW; the projection of patches stays random."""
    return Config(
        data=Data(
            source="tfds:imagenet2012",
            recipe="moco_v3:vit_q",
            recipe_k="moco_v3:vit_k",
        ),
        model=Model(
            mechanism="moco_v3",
            mechanism_options=("predictor_bn=true",),
            backbone={"small": "vit:vit_small", "base": "vit:vit_base"}[size],
            head="mlp_bn3",
            hidden=4096,
            dim=256,
            momentum=0.99,
            temperature=0.2,
            symmetric=True,
            shuffle=False,
        ),
        optimizer=Optimizer(
            name="adamw",
            learning_rate=1.5e-4,
            weight_decay=0.1,
            schedule="cosine_after_warmup",
            warmup_epochs=40.0,
            warmup_factor=0.0,
        ),
        batch_size=4096,
        epochs=300,
        mixed_bfloat16=True,
        log_every_steps=50,
    )
