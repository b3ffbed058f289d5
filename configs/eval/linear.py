"""Linear classification on frozen features, the reference protocol.

Command:  python evaluate.py --task=linear --checkpoint=runs/v2 --workdir=runs/v2_linear
          (where lr 30 diverges: --config.optimizer.learning_rate=..., found by linear_cached)
Cost:     100 passes of the backbone over the training images
Expected: ImageNet: v1 60.6, v2 67.5 at 200 epochs, 71.1 at 800 % (published)
Source:   main_lincls.py; v1, section 4.1
"""

from moco_tf.evaluation.config import Linear


def get_config():
    """lr 30, no weight decay, batch 256, 100 epochs, x.1 at 60 and 80 %."""
    return Linear()
