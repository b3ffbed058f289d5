"""Linear classification on frozen features, the protocol of MoCo v3.

Command:  python evaluate.py --task=linear --config=configs/eval/linear_v3.py \
              --checkpoint=runs/v3 --workdir=runs/v3_linear
          (a ViT: --config=configs/eval/linear_v3.py:vit; on other data choose the rate by
          --task=linear_cached)
Cost:     90 passes of the backbone over the training images
Expected: ImageNet: ResNet-50 68.9, 72.8, 74.6 % after 100, 300, 1,000 epochs; ViT-S/16 73.2 and
          ViT-B/16 76.7 % after 300 (published with the code; ViT-B 76.5 in the paper)
Source:   main_lincls.py and CONFIG.md of facebookresearch/moco-v3
"""

from moco_tf.evaluation.config import Linear
from moco_tf.training.config import Optimizer


def get_config(backbone="resnet"):
    """lr .1, or 3 for a ViT, for 256 images, no weight decay, batch 1024, 90 epochs, cosine."""
    rate = {"resnet": 0.1, "vit": 3.0}[backbone]
    return Linear(
        optimizer=Optimizer(learning_rate=rate, weight_decay=0.0, schedule="cosine"),
        batch_size=1024,
        epochs=90,
    )
