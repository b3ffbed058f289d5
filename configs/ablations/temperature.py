"""Ablation: the temperature, with the linear head and with the MLP.

Command:  python -m moco_tf ablate --config=configs/ablations/temperature.py \
              --workdir=runs/ablate_temperature
          (--config=configs/ablations/temperature.py:cifar10 for CIFAR-10)
Cost:     one and a half of momentum.py, six runs
Expected: not run here. In the paper the MLP is best at 0.2 (linear, ImageNet)
Source:   arXiv:2003.04297, table 1 and section 3, "MLP head"
"""

from moco_tf.pretraining.ablation import Ablation, base


def get_config(data="fabrics"):
    """Three temperatures, two heads."""
    runs = {
        f"{head}-{temperature}": {"model.head": head, "model.temperature": temperature}
        for head in ("linear", "mlp")
        for temperature in (0.07, 0.1, 0.2)
    }
    return Ablation("Temperature and head", base(data), runs)
