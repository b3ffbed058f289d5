"""Projection heads on top of a backbone, with torch's default initialisation."""

import math

import keras
from keras import layers

from moco_tf.backbones.resnet import TORCH_DEFAULT


def linear(features, dim=128):
    """MoCo v1's head, one linear layer: NxC features to Nxdim. Source: v1, section 3.3."""
    return _dense(features, dim, name="fc")


def mlp(features, dim=128, hidden=None):
    """MoCo v2's head, C-hidden-ReLU-dim: NxC features to Nxdim; hidden is C unless given.

    Source: v2, section 3.
    """
    x = _dense(features, hidden or features.shape[-1], name="fc.0")
    x = layers.ReLU(name="fc.1")(x)
    return _dense(x, dim, name="fc.2")


def encoder(backbone, head, dim=128):
    """Joins a backbone and a head into an encoder.

    Args:
        backbone: `keras.Model` from images to NxC features.
        head: `linear` or `mlp`, or any function `(features, dim) -> Nxdim`; None for a backbone
            whose head is not known: the embeddings are its features.
        dim: length of the embeddings, with a head.

    Returns:
        A `keras.Model` from images to Nxdim float32 embeddings, not normalised. Its
        `layers[1]` is the given backbone.
    """
    images = keras.Input(backbone.input_shape[1:], name="images")
    features = backbone(images)  # NxC
    embeddings = head(features, dim) if head else features  # NxD
    # Similarities and the loss are float32, also under mixed_bfloat16.
    embeddings = layers.Activation("linear", dtype="float32", name="embeddings")(embeddings)
    return keras.Model(images, embeddings, name="encoder")


def backbone_of(encoder):
    """The part of an encoder before its head: `keras.Model` from images to NxC features."""
    return encoder.layers[1]


def before_and_after_head(encoder):
    """An encoder with two outputs, its backbone's features NxC and its own embeddings NxD."""
    return keras.Model(encoder.input, [encoder.layers[2].input, encoder.output])


def _dense(x, units, name):
    limit = 1 / math.sqrt(x.shape[-1])
    return layers.Dense(
        units,
        kernel_initializer=TORCH_DEFAULT(),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        name=name,
    )(x)
