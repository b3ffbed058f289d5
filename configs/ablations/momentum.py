"""Ablation: the momentum of the key encoder.

Command:  python -m moco_tf.ablate --config=configs/ablations/momentum.py \
              --workdir=runs/ablate_momentum
          (--config=configs/ablations/momentum.py:cifar10 for CIFAR-10)
Cost:     TODO
Expected: TODO
Source:   arXiv:1911.05722, section 4.1, "Ablation: momentum"
"""

from moco_tf.ablation import Ablation, base


def get_config(data="shapes"):
    """From keys by the query encoder itself to keys that hardly change."""
    values = (0.0, 0.9, 0.99, 0.999)
    runs = {str(value): {"model.momentum": value} for value in values}
    return Ablation("Momentum of the key encoder", base(data), runs)
