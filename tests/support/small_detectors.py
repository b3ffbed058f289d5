"""Small detectors that train in seconds."""

import keras
import tensorflow as tf
from small_resnet import four_stages

from moco_tf import optim
from moco_tf.backbones.encoder import Encoder
from moco_tf.detection.model import network as networks
from moco_tf.detection.model.detector import Detector, RCNNSettings

SETTINGS = RCNNSettings((300, 300), (150, 100), regions=64, detections=20, sampling_ratio=2)


def make_detector(
    architecture, width=8, rate=0.01, settings=SETTINGS, static_shapes=False, **options
):
    """A small detector of three classes."""
    keras.utils.set_random_seed(0)
    encoder = Encoder(four_stages(width))
    options = {"masks": True, "width_divisor": 8, **options}
    network = networks.make_network(encoder, architecture, 3, **options)
    model = Detector(network, lambda x: tf.cast(x, tf.float32) / 64 - 2, settings, static_shapes)
    model.compile(optim.SGD(rate, momentum=0.9, weight_decay=1e-4))
    model.optimizer.build(model.trainable_variables)
    return model
