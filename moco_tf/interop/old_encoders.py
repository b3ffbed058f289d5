"""Conversion of encoders saved by version 0.1.0, which had no class `Encoder`."""

import re

import keras

from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.resnet import ResNet

BLOCK = re.compile(r"layer(\d)\.(\d+)\.")


def convert(model: keras.Model) -> Encoder | None:
    """Converts a model that version 0.1.0 saved as encoder.keras to an `Encoder`.

    Args:
        model: functional `keras.Model` of an input, a backbone, a head's layers and the float32
            layer "embeddings".

    Returns:
        `Encoder` with the same weights, whose backbone is a `ResNet` if its layers are; None for
        any other model.
    """
    layers = getattr(model, "layers", [])
    if len(layers) < 3 or not isinstance(layers[1], keras.Model) or len(model.outputs) != 1:
        return None
    if layers[-1].name != "embeddings":  # such as a classifier, whose outputs are logits
        return None
    features, embeddings = layers[2].input, layers[-1].input
    head = None
    if features is not embeddings:
        head = keras.models.clone_model(
            keras.Model(features, embeddings, name="head"),
            # float32, so that a copy of a bfloat16 encoder can compute in float32.
            input_tensors=keras.Input(features.shape[1:], dtype="float32", name="features"),
            clone_function=lambda layer: layer,
        )
    return Encoder(_as_resnet(layers[1]), head, name=model.name)


def _as_resnet(backbone):
    """The `ResNet` with a functional model's weights; any other model is returned as it is."""
    layers = {layer.name: layer for layer in backbone.layers}
    if not {"conv1", "bn1", "layer1.0.conv2"} <= layers.keys():
        return backbone
    stem, norm, grouped = layers["conv1"], layers["bn1"], layers["layer1.0.conv2"]
    blocks = {tuple(map(int, match.groups())) for match in map(BLOCK.match, layers) if match}
    resnet = ResNet(
        "bottleneck" if "layer1.0.conv3" in layers else "basic",
        [sum(stage == i for stage, _ in blocks) for i in range(1, max(blocks)[0] + 1)],
        width=stem.filters,
        groups=grouped.groups,
        group_width=grouped.filters // grouped.groups * 64 // stem.filters,
        stem="imagenet" if stem.kernel_size == (7, 7) else "cifar",
        channels=backbone.input_shape[-1],
        bn_group_size=norm.group_size,
        name=backbone.name,
        dtype=stem.dtype_policy,
    )
    if {layer.name for layer in resnet.layers} != layers.keys():
        return backbone
    for layer in resnet.layers:
        layer.set_weights(layers[layer.name].get_weights())
    return resnet
