"""Projection heads for an `Encoder`, with torch's default initialization."""

import functools
import math
from collections.abc import Callable

import keras
from keras import layers

from moco_tf.backbones.batch_norm import BatchNorm
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


def mlp_bn(
    dim: int = 256,
    hidden: int | None = 4096,
    num_layers: int = 2,
    last_bn: bool = True,
    name: str = "fc",
) -> Head:
    """MoCo v3's projector and predictor: linear layers without biases, each followed by BN.

    BN is synchronized over replicas. Between the layers there is a ReLU; the last BN has no scale
    and no offset. Layers are numbered as in the public code: "fc.0", "fc.1" (BN), "fc.2" (ReLU).

    Args:
        dim: length of the embeddings.
        hidden: units of all layers but the last; None for as many as the MLP has inputs.
        num_layers: number of linear layers: 2 for a ResNet's projector and for predictors, 3 for a
            vision transformer's projector.
        last_bn: whether BN follows the last layer; not in the public code's predictor for ResNets.
        name: first part of the layers' names.

    Example:

        encoder = Encoder(resnet.resnet50(synchronized_bn=True), heads.mlp_bn())

    Source: moco/builder.py of facebookresearch/moco-v3, _build_mlp; MoCo v3 (arXiv:2104.02057),
    section 4.1.
    """

    def head(x):
        width = hidden or x.shape[-1]
        for i in range(num_layers - 1):
            x = _dense(x, width, name=f"{name}.{3 * i}", use_bias=False)
            x = BatchNorm(synchronized=True, name=f"{name}.{3 * i + 1}")(x)
            x = layers.ReLU(name=f"{name}.{3 * i + 2}")(x)
        last = 3 * (num_layers - 1)
        x = _dense(x, dim, name=f"{name}.{last}", use_bias=False)
        if last_bn:
            x = BatchNorm(synchronized=True, affine=False, name=f"{name}.{last + 1}")(x)
        return x

    return head


# By the names of `--config.model.head`; each takes `dim`, and `hidden` if it has hidden layers.
HEADS = {
    "linear": linear,
    "mlp": mlp,
    "mlp_bn2": functools.partial(mlp_bn, num_layers=2),
    "mlp_bn3": functools.partial(mlp_bn, num_layers=3),
}


def _dense(x, units, name, use_bias=True):
    limit = 1 / math.sqrt(x.shape[-1])
    return layers.Dense(
        units,
        kernel_initializer=TORCH_DEFAULT(),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        use_bias=use_bias,
        name=name,
    )(x)
