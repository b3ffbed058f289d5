"""Files that version 0.1.0 saved as encoder.keras are read as an `Encoder`."""

import keras
import numpy as np
import pytest

from moco_tf import Encoder, encoders, heads, resnet
from moco_tf.interop import old_encoders


def save_as_0_1_0(backbone, head, path):
    """Saves what 0.1.0 made of a backbone and a head: functional models, the head's layers flat."""
    if isinstance(backbone, resnet.ResNet):  # then it was a functional model too
        backbone = keras.Model(backbone.input, backbone.output, name=backbone.name)
    images = keras.Input(backbone.input_shape[1:], name="images")
    x = backbone(images)
    x = head(x) if head else x
    x = keras.layers.Activation("linear", dtype="float32", name="embeddings")(x)
    model = keras.Model(images, x, name="encoder")
    assert type(model.layers[1]).__name__ == "Functional"
    model.save(path)
    return model


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("head", [heads.linear(5), heads.mlp(5, hidden=7), None])
@pytest.mark.parametrize(
    "block, grouped, stem", [("basic", False, "cifar"), ("bottleneck", True, "imagenet")]
)
def test_a_resnet_is_one_again(block, grouped, stem, head, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        sizes = {"groups": 4, "group_width": 8} if grouped else {}
        backbone = resnet.ResNet(block, (1, 2), width=16, stem=stem, bn_group_size=2, **sizes)
        old = save_as_0_1_0(backbone, head, tmp_path / "encoder.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    encoder = old_encoders.convert(keras.models.load_model(tmp_path / "encoder.keras"))
    assert type(encoder) is Encoder
    assert encoder.backbone.get_config() == backbone.get_config()
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    for training in (False, True):
        np.testing.assert_array_equal(encoder(x, training=training), old(x, training=training))
    assert [v.path for v in encoder.variables] == [v.path for v in old.variables]


def test_another_backbone_is_kept_as_it_is(tmp_path):
    images = keras.Input((8, 8, 3))
    backbone = keras.Model(images, keras.layers.Flatten()(images), name="flat")
    old = save_as_0_1_0(backbone, heads.linear(5), tmp_path / "encoder.keras")
    encoder = encoders.load(str(tmp_path / "encoder.keras")).encoder
    assert encoder.backbone.name == "flat" and encoder.head.get_layer("fc").units == 5
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(encoder(x), old(x))
    with pytest.raises(ValueError, match="A ResNet is needed, received flat"):
        resnet.require_resnet(encoder.backbone)
