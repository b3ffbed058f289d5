"""Networks in layers of Keras alone, which load without this package."""

import keras

from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.interop.read_back import relative_difference
from moco_tf.log import log


def plain_keras(network: keras.Model) -> keras.Model:
    """A copy of a network whose BN is Keras' own layer, with the same weights.

    In inference it computes the same. In training Keras' BN has no groups, and its running
    variance is the biased one.

    Args:
        network: functional model, such as a backbone.

    Raises:
        ValueError: if the copy computes something else.

    Example:

        plain_keras(resnet.resnet50()).save("backbone.keras")
    """

    def clone(layer):
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=clone)
        if isinstance(layer, BatchNorm):
            return keras.layers.BatchNormalization(
                momentum=layer.momentum,
                epsilon=layer.epsilon,
                center=layer.affine,
                scale=layer.affine,
                name=layer.name,
                dtype=layer.dtype_policy,
                trainable=layer.trainable,
            )
        config = {name: _without_own(value) for name, value in layer.get_config().items()}
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.set_weights(network.get_weights())
    _require_equal(copy, network)
    others = sorted({type(x).__name__ for x in _layers(copy) if not _is_keras(x)})
    if others:
        log.warning("Loading the file needs the modules of your own layers: %s.", ", ".join(others))
    return copy


def _without_own(value):
    """A config value; an initializer of this package, used up by now, becomes Keras' default."""
    if isinstance(value, dict) and str(value.get("registered_name", "")).startswith("moco_tf>"):
        return "glorot_uniform"
    return value


def _layers(network):
    for layer in network.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else [layer]


def _is_keras(layer):
    return type(layer).__module__.startswith("keras.")


def _require_equal(copy, network):
    difference = relative_difference(copy, network)
    if not difference <= 1e-4:
        raise ValueError(
            "The backbone in layers of Keras must compute the same features. Received: a "
            f"difference of {difference:g} of the largest on random images. Export the encoder "
            "instead, --part=encoder."
        )
