"""The encoder: a backbone joined with MoCo's heads or with one of a user's own."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf import SGD, Encoder, MoCo, encoders, heads, resnet
from moco_tf.backbones.precision import in_float32, precision
from moco_tf.interop.savedmodel import with_policy
from moco_tf.pretraining import build


def assert_uniform(values, limit):
    values = np.ravel(values)
    assert np.abs(values).max() <= limit
    assert np.abs(values).max() > 0.98 * limit
    np.testing.assert_allclose(values.std(), limit / math.sqrt(3), rtol=0.05)


def flatten(features):
    """A backbone from Nx1x1xfeatures "images"."""
    images = keras.Input((1, 1, features))
    return keras.Model(images, keras.layers.Flatten()(images))


def test_heads_start_as_torch_s_default():
    backbone = flatten(256)
    linear, mlp = (Encoder(backbone, head(128)) for head in (heads.linear, heads.mlp))
    for model, name, outputs in ((linear, "fc", 128), (mlp, "fc.0", 256), (mlp, "fc.2", 128)):
        dense = model.head.get_layer(name)
        assert dense.units == outputs
        assert_uniform(dense.kernel.numpy(), 1 / 16)
        assert np.abs(dense.bias.numpy()).max() <= 1 / 16
        assert dense.bias.numpy().std() > 0.5 / 16


def test_heads_equal_oracle():
    backbone = flatten(12)
    x = np.random.default_rng(0).normal(size=(4, 1, 1, 12)).astype(np.float32)
    flat = x[:, 0, 0]
    linear, mlp = (Encoder(backbone, head(5)) for head in (heads.linear, heads.mlp))
    w, b = linear.get_weights()
    np.testing.assert_allclose(linear(x), flat @ w + b, atol=1e-6)
    w0, b0, w2, b2 = mlp.get_weights()
    np.testing.assert_allclose(mlp(x), np.maximum(0, flat @ w0 + b0) @ w2 + b2, atol=1e-6)


def test_backbone_may_be_sequential():
    backbone = keras.Sequential([keras.Input((1, 1, 12)), keras.layers.Flatten()])
    assert Encoder(backbone, heads.linear(5)).output_shape == (None, 5)


class Unregistered(keras.layers.Dense):
    """A head that MoCo can copy, but Keras cannot load."""


@keras.saving.register_keras_serializable("test_encoder")
class Scaled(keras.layers.Layer):
    """A head of a user's own."""

    def build(self, input_shape):
        self.scale = self.add_weight(
            name="scale", shape=(input_shape[-1],), initializer="random_normal"
        )

    def call(self, features):
        return features * self.scale


HEADS = {
    "linear": lambda: heads.linear(5),
    "mlp": lambda: heads.mlp(5, hidden=7),
    "dense layer": lambda: keras.layers.Dense(5),
    "own layer": Scaled,
    "own function": lambda: lambda x: keras.layers.Dense(3)(x) + keras.layers.Dense(3)(x),
    "none": lambda: None,
}


def small(name, **options):
    keras.utils.set_random_seed(0)
    backbone = resnet.ResNet("basic", (1,), width=4, stem="cifar", **options)
    return Encoder(backbone, HEADS[name]())


@pytest.mark.parametrize("name", HEADS)
def test_an_encoder_survives_copies_and_files(name, tmp_path):
    encoder = small(name)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    features, embeddings = encoder.features_and_embeddings()(x)
    np.testing.assert_array_equal(features, encoder.backbone(x))
    np.testing.assert_array_equal(embeddings, encoder(x))
    want = encoder.head(features) if encoder.head else features
    np.testing.assert_allclose(embeddings, want, atol=1e-6)
    encoder.save(tmp_path / "encoder.keras")
    clone = encoder.clone()
    clone.set_weights(encoder.get_weights())
    for copy in (clone, keras.models.load_model(tmp_path / "encoder.keras")):
        assert type(copy) is Encoder and type(copy.backbone) is resnet.ResNet
        np.testing.assert_array_equal(copy(x), embeddings)
        np.testing.assert_array_equal(copy.features_and_embeddings()(x)[0], features)
        assert [v.path for v in copy.variables] == [v.path for v in encoder.variables]


@pytest.mark.parametrize("head", [heads.mlp(5), Scaled(), Unregistered(5)])
def test_moco_trains_any_encoder(head):
    backbone = resnet.ResNet("basic", (1, 1), width=4, stem="cifar")
    model = MoCo(Encoder(backbone, head), queue_size=8)
    assert type(model.encoder_k) is Encoder
    model.compile(SGD(0.1))
    before = [v.numpy() for v in model.trainable_variables]
    x = tf.random.stateless_normal([2, 4, 8, 8, 3], [0, 0])
    assert np.isfinite(model.step(tuple(x))["loss"])
    assert all(np.any(a != v.numpy()) for a, v in zip(before, model.trainable_variables))
    if not isinstance(head, Unregistered):
        copy = MoCo.from_config(model.get_config())
        assert type(copy.encoder_q.backbone) is resnet.ResNet


def test_embeddings_are_float32_in_every_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = small("mlp")
    finally:
        keras.config.set_dtype_policy("float32")
    copy = mixed.clone()
    copy.set_weights(mixed.get_weights())
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(mixed(x), copy(x))
    assert (mixed(x).dtype, copy.backbone(x).dtype) == (tf.float32, tf.bfloat16)
    assert copy.head.get_layer("fc.0").compute_dtype == "bfloat16"
    exact = small("mlp")
    exact.set_weights(mixed.get_weights())
    full = with_policy(mixed.features_and_embeddings(), "float32")
    np.testing.assert_array_equal(full(x)[1], exact(x))
    half = with_policy(exact.features_and_embeddings(), "mixed_bfloat16")
    np.testing.assert_array_equal(half(x)[1], mixed(x))


def test_what_gives_no_vector_an_image_is_refused():
    images = keras.Input((8, 8, 3))
    maps = keras.Model(images, keras.layers.Conv2D(4, 3)(images))
    with pytest.raises(ValueError, match="`backbone` must map images to features.*shape"):
        Encoder(maps)
    with pytest.raises(ValueError, match=r"Is it `heads.mlp` instead of `heads.mlp\(\)`"):
        Encoder(flatten(4), heads.mlp)

    class Subclassed(keras.Model):
        pass

    with pytest.raises(ValueError, match="functional or a built Sequential.*Wrap a subclassed"):
        Encoder(Subclassed())


@pytest.mark.parametrize("head", [heads.linear, heads.mlp, None])
def test_an_encoder_trained_in_bfloat16_is_loaded_in_float32(head, tmp_path):
    def make(policy):
        with precision(policy):
            backbone = resnet.ResNet("basic", (1,), width=8, bn_group_size=2)
            return Encoder(backbone, head and head(5))

    mixed, exact = make("mixed_bfloat16"), make("float32")
    exact.set_weights(mixed.get_weights())
    mixed.save(tmp_path / "encoder.keras")
    loaded = encoders.load(str(tmp_path / "encoder.keras"))
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.encoder(x), exact(x))
    assert np.abs(loaded.encoder(x) - mixed(x)).max() > 0
    assert type(loaded.encoder.backbone) is resnet.ResNet
    assert loaded.encoder.backbone.bn_group_size == 2
    assert loaded.digest == encoders.digest(keras.models.load_model(tmp_path / "encoder.keras"))
    untrained = encoders.load(str(tmp_path / "encoder.keras"), random_init=True).encoder
    assert untrained.backbone(x).dtype == tf.float32


def test_another_backbone_trained_in_bfloat16_computes_in_float32():
    with precision("mixed_bfloat16"):
        images = keras.Input((8, 8, 3))
        x = keras.layers.Conv2D(4, 3, name="a")(images)
        x = keras.layers.Flatten()(keras.Sequential([keras.layers.ReLU()])(x + 1.0) * 2)
        mixed = Encoder(keras.Model(images, x), heads.linear(5))
    exact = in_float32(mixed)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    kernel, bias = exact.backbone.get_layer("a").get_weights()
    conv = tf.nn.conv2d(x, kernel, 1, "VALID") + bias
    want = tf.reshape(tf.nn.relu(conv + 1) * 2, [2, -1])
    np.testing.assert_allclose(exact.backbone(x), want, atol=1e-5)
    assert mixed.backbone(x).dtype == tf.bfloat16
    assert in_float32(exact) is exact
    # The export's copies of such a backbone, whose graph holds operations beside its layers.
    again = with_policy(exact.features_and_embeddings(), "mixed_bfloat16")
    np.testing.assert_array_equal(again(x)[1], mixed(x))


def test_an_encoder_of_fixed_input_gets_images_of_its_size(tmp_path, monkeypatch):
    images = keras.Input((8, 8, 3))
    fixed = keras.Model(images, keras.layers.Flatten()(images))
    Encoder(fixed, heads.linear(5)).save(tmp_path / "encoder.keras")
    loaded = encoders.load(str(tmp_path / "encoder.keras"))
    assert encoders.preprocessing(loaded).image_size_px == 8
    assert encoders.preprocessing(loaded, resize_px=12).resize_px == 12
    with pytest.raises(ValueError, match="`image_size_px` must be 8.*Received: 16"):
        encoders.preprocessing(loaded, image_size_px=16)
    monkeypatch.setattr(build, "make_backbone", lambda model: fixed)
    with pytest.raises(ValueError, match="`--config.data.image_size_px` must be 8.*Received: 16"):
        build.make_model(tiny.config())
    assert build.make_model(tiny.config(data__image_size_px=8)).encoder_q.image_size_px == 8
