"""Ablation: the projection of a vision transformer's patches, random or trained.

Command:  python -m moco_tf ablate --config=configs/ablations/patches.py --workdir=runs/patches
          (--config=configs/ablations/patches.py:cifar10 for CIFAR-10)
Cost:     about that of moco_v3.py, two runs
Expected: not run here; on ImageNet training is more stable with a random projection (published)
Source:   arXiv:2104.02057, section 4.2; --stop-grad-conv1 of main_moco.py of
          facebookresearch/moco-v3
"""

from moco_tf.pretraining.ablation import Ablation, base


def get_config(data="fabrics"):
    """Four blocks on patches of 8 px, whose projection is frozen or trained."""
    config = base(data)
    model = config.model
    model.mechanism = "moco_v3"
    model.mechanism_options = ("predictor_bn=true",)
    model.backbone = "vit:vit_small"
    model.width = 96
    model.stem = "imagenet"
    model.bn_group_size = None
    model.head = "mlp_bn3"
    model.hidden = 256
    model.temperature = 0.2
    model.symmetric = True
    model.shuffle = False
    size = ("depth=4", "num_heads=4", "patch_px=8")
    runs = {
        "frozen": {"model.backbone_options": size},
        "trained": {"model.backbone_options": (*size, "frozen_patches=false")},
    }
    return Ablation("Projection of patches", config, runs)
