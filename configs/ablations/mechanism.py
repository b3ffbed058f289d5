"""Ablation: where the keys come from.

Command:  python -m moco_tf.ablate --config=configs/ablations/mechanism.py \
              --workdir=runs/ablate_mechanism
          (--config=configs/ablations/mechanism.py:cifar10 for CIFAR-10)
Cost:     three runs, about as momentum.py
Expected: kNN 59.8 (queue), 84.3 (end-to-end) and 26.6 % (memory bank, at chance); in the
          paper, with more negatives, the queue is the best of the three
Source:   arXiv:1911.05722, section 4.1, "Contrastive loss mechanisms", figure 3
"""

from moco_tf.ablation import Ablation, base


def get_config(data="shapes"):
    """MoCo's queue, keys with gradients, and a memory bank with as many negatives as the queue."""
    runs = {
        "queue": {},
        "end_to_end": {"model.mechanism": "end_to_end"},
        "memory_bank": {"model.mechanism": "memory_bank", "model.shuffle": False},
    }
    return Ablation("Contrastive mechanism", base(data), runs)
