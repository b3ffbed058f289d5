"""Ablation: shuffling between the groups that share BN statistics.

Command:  python -m moco_tf.ablate --config=configs/ablations/shuffle_bn.py \
              --workdir=runs/ablate_shuffle_bn
          (--config=configs/ablations/shuffle_bn.py:cifar10 for CIFAR-10)
Cost:     two runs, half of momentum.py
Expected: not run here; worse without (the CIFAR-10 demo: by 4 % at 800 epochs)
Source:   arXiv:1911.05722, section 3.3, "Shuffling BN", and appendix A.9
"""

from moco_tf.ablation import Ablation, base


def get_config(data="shapes"):
    """Without it, BN tells which keys were normalised together with the query."""
    runs = {"on": {"model.shuffle": True}, "off": {"model.shuffle": False}}
    return Ablation("Shuffling BN", base(data), runs)
