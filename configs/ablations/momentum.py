"""Ablation: the momentum of the key encoder.

Command:  python -m moco_tf ablate --config=configs/ablations/momentum.py \
              --workdir=runs/ablate_momentum
          (--config=configs/ablations/momentum.py:cifar10 for CIFAR-10)
Cost:     about 11 minutes on two CPU cores (estimated from one variant)
Expected: kNN 31.2 % for 0, 82.5 % for 0.99; before training 33.9 %; 0.9 and 0.999 were not run. In
          the paper, in a million steps: fails, 55.2, 57.8, 59.0 % (linear, ImageNet, K = 4096)
Source:   arXiv:1911.05722, section 4.1, "Ablation: momentum"
"""

from moco_tf.pretraining.ablation import Ablation, base


def get_config(data="fabrics"):
    """From keys by the query encoder itself to keys that hardly change."""
    values = (0.0, 0.9, 0.99, 0.999)
    runs = {str(value): {"model.momentum": value} for value in values}
    return Ablation("Momentum of the key encoder", base(data), runs)
