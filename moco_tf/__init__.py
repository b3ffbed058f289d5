"""Momentum Contrast (MoCo v1, v2 and v3) for Keras 3 on TensorFlow."""

import moco_tf.startup  # isort: skip  # noqa: F401 before anything imports TensorFlow
from moco_tf.backbones import heads, resnet, vit
from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.backbones.encoder import Encoder
from moco_tf.data.pairs import two_views
from moco_tf.encoders import load
from moco_tf.mechanisms import EndToEnd, MemoryBank
from moco_tf.moco import MoCo
from moco_tf.moco_v3 import MoCoV3
from moco_tf.optim import LARS, SGD, Cosine, Steps
from moco_tf.version import VERSION as __version__

__all__ = [
    "LARS",
    "SGD",
    "BatchNorm",
    "Cosine",
    "Encoder",
    "EndToEnd",
    "MemoryBank",
    "MoCo",
    "MoCoV3",
    "Steps",
    "__version__",
    "heads",
    "load",
    "resnet",
    "two_views",
    "vit",
]
