"""Ablation: the number of negatives.

Command:  python -m moco_tf ablate --config=configs/ablations/queue.py --workdir=runs/ablate_queue
          (--config=configs/ablations/queue.py:cifar10 for CIFAR-10)
Cost:     as momentum.py, four runs
Expected: kNN 81.2 % for 64, 82.5 % for 512; 256 and 2048 were not run. In the paper accuracy rises
          with the number of negatives
Source:   arXiv:1911.05722, section 4.1, figure 3
"""

from moco_tf.pretraining.ablation import Ablation, base


def get_config(data="fabrics"):
    """From one batch in the queue to many."""
    config = base(data)
    sizes = [config.batch_size * batches for batches in (1, 4, 8, 32)]
    runs = {str(size): {"model.queue_size": size} for size in sizes}
    return Ablation("Size of the queue", config, runs)
