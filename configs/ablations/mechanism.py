"""Ablation: where the keys come from.

Command:  python -m moco_tf ablate --config=configs/ablations/mechanism.py \
              --workdir=runs/ablate_mechanism
          (--config=configs/ablations/mechanism.py:cifar10 for CIFAR-10)
Cost:     as momentum.py, three runs
Expected: not run here. In the paper the bank is 2.6 % below the queue (K = 65,536), and end-to-end
          as good as the queue at small K
Source:   arXiv:1911.05722, section 4.1, "Contrastive loss mechanisms", figure 3
"""

from moco_tf.pretraining.ablation import Ablation, base


def get_config(data="fabrics"):
    """MoCo's queue, keys with gradients, and a memory bank with as many negatives as the queue."""
    config = base(data)
    config.model.head = "linear"  # as in v1, which has this ablation
    runs = {
        "queue": {},
        "end_to_end": {"model.mechanism": "end_to_end"},
        "memory_bank": {"model.mechanism": "memory_bank", "model.shuffle": False},
    }
    return Ablation("Contrastive mechanism", config, runs)
