"""Projection heads for an `Encoder`, with torch's default initialization."""

import math
from collections.abc import Callable

import keras
from keras import layers

from moco_tf.backbones.resnet_blocks import TORCH_DEFAULT

Head = Callable[[keras.KerasTensor], keras.KerasTensor]  # NxC features to NxD embeddings


def linear(dim: int = 128) -> Head:
    """MoCo v1's head: one linear layer, "fc".

    Args:
        dim: length of the embeddings.

    Example:

        encoder = Encoder(resnet.resnet50(), heads.linear(dim=128))

    Source: MoCo v1, section 3.3.
    """

    def head(features):
        return _dense(features, dim, name="fc")

    return head


def mlp(dim: int = 128, hidden: int | None = None) -> Head:
    """MoCo v2's head: a linear layer "fc.0", ReLU, and a linear layer "fc.2".

    Args:
        dim: length of the embeddings.
        hidden: units of the first layer; None for as many as there are features.

    Example:

        encoder = Encoder(resnet.resnet50(), heads.mlp(dim=128))

    Source: MoCo v2, section 3.
    """

    def head(features):
        x = _dense(features, hidden or features.shape[-1], name="fc.0")
        x = layers.ReLU(name="fc.1")(x)
        return _dense(x, dim, name="fc.2")

    return head


def _dense(x, units, name):
    limit = 1 / math.sqrt(x.shape[-1])
    return layers.Dense(
        units,
        kernel_initializer=TORCH_DEFAULT(),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        name=name,
    )(x)
