"""Ablation: shuffling between the groups that share BN statistics.

Command:  python -m moco_tf ablate --config=configs/ablations/shuffle_bn.py \
              --workdir=runs/ablate_shuffle_bn
          (--config=configs/ablations/shuffle_bn.py:cifar10 for CIFAR-10)
Cost:     half of momentum.py, two runs
Expected: not run here. In the paper "off" overfits the pretext task: its training accuracy
          quickly exceeds 99.9 %, and kNN accuracy soon drops
Source:   arXiv:1911.05722, section 3.3, "Shuffling BN", and appendix A.9
"""

from moco_tf.pretraining.ablation import Ablation, base


def get_config(data="fabrics"):
    """Without it, BN tells which keys were normalised together with the query."""
    runs = {"on": {"model.shuffle": True}, "off": {"model.shuffle": False}}
    return Ablation("Shuffling BN", base(data), runs)
