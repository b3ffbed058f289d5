"""Ablation: the predictor and the momentum of MoCo v3.

Command:  python -m moco_tf ablate --config=configs/ablations/moco_v3.py --workdir=runs/ablate_v3
          (--config=configs/ablations/moco_v3.py:cifar10 for CIFAR-10)
Cost:     twice momentum.py, four runs
Expected: not run here
Source:   arXiv:2104.02057, section 4.3, the prediction head and the momentum; --moco-m-cos of
          main_moco.py of facebookresearch/moco-v3
"""

from moco_tf.pretraining.ablation import Ablation, base


def get_config(data="fabrics"):
    """With and without the predictor, and a momentum that rises, stays, or is zero."""
    config = base(data)
    model = config.model
    model.mechanism = "moco_v3"
    model.backbone_options = ("synchronized_bn=true",)
    model.bn_group_size = None
    model.head = "mlp_bn2"
    model.hidden = 256
    model.temperature = 0.2
    model.symmetric = True
    model.shuffle = False
    constant = ("momentum_schedule=constant",)
    runs = {
        "moco_v3": {"model.mechanism_options": ()},
        "no_predictor": {"model.mechanism_options": ("predictor_layers=0",)},
        "constant_momentum": {"model.mechanism_options": constant},
        "momentum_0": {"model.mechanism_options": constant, "model.momentum": 0.0},
    }
    return Ablation("Predictor and momentum of MoCo v3", config, runs)
