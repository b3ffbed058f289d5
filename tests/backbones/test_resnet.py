"""ResNets and heads: torchvision's architecture, in NumPy, and its initialisation."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from moco_tf import addresses, backbones, resnet

# Trainable parameters without the classifier: torchvision's models, and MoCo v1, table 1.
PARAMETERS = {
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
    "resnet152": 58_143_808,
    "resnext50": 45_972_800,
}
MILLION_PARAMETERS = {"resnet50x2": 94, "resnet50x4": 375}


def count_parameters(make):
    """Without memory for them."""
    with keras.StatelessScope(initialize_variables=False):
        count = sum(math.prod(v.shape) for v in make().trainable_variables)
    keras.utils.clear_session()  # else the next scope would initialise them
    return count


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    assert count_parameters(getattr(resnet, name)) == PARAMETERS[name]


@pytest.mark.parametrize("name", MILLION_PARAMETERS)
def test_parameter_count_of_the_paper(name):
    assert round(count_parameters(getattr(resnet, name)) / 1e6) == MILLION_PARAMETERS[name]


def test_every_address_resolves():
    assert len(resnet.ADDRESSES) == len(PARAMETERS) + len(MILLION_PARAMETERS)
    for address in resnet.ADDRESSES:
        name = address.removeprefix("resnet:")
        assert addresses.resolve(backbones, address, "model.backbone") is getattr(resnet, name)


class Oracle:
    """The forward pass of torchvision's ResNet, reading the weights by torchvision's names."""

    def __init__(self, model, training):
        self.model = model
        self.training = training

    def __call__(self, x, bottleneck, depths, groups, stem):
        x = x.astype(np.float64)
        first = {"stride": 2, "padding": 3} if stem == "imagenet" else {"stride": 1, "padding": 1}
        x = relu(self.norm(self.conv(x, "conv1", **first), "bn1"))
        if stem == "imagenet":
            x = windows(x, 3, 2, 1, fill=-np.inf).max(axis=(4, 5))
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                block = self.bottleneck if bottleneck else self.basic
                x = block(x, f"layer{stage + 1}.{i}", stride, groups)
        return x.mean(axis=(1, 2))

    def basic(self, x, name, stride, groups):
        y = self.conv(x, f"{name}.conv1", stride=stride, padding=1)
        y = relu(self.norm(y, f"{name}.bn1"))
        y = self.norm(self.conv(y, f"{name}.conv2", padding=1), f"{name}.bn2")
        return relu(y + self.shortcut(x, name, stride))

    def bottleneck(self, x, name, stride, groups):
        y = relu(self.norm(self.conv(x, f"{name}.conv1"), f"{name}.bn1"))
        y = self.conv(y, f"{name}.conv2", stride=stride, padding=1, groups=groups)
        y = relu(self.norm(y, f"{name}.bn2"))
        y = self.norm(self.conv(y, f"{name}.conv3"), f"{name}.bn3")
        return relu(y + self.shortcut(x, name, stride))

    def shortcut(self, x, name, stride):
        if f"{name}.downsample.0" not in [layer.name for layer in self.model.layers]:
            return x
        x = self.conv(x, f"{name}.downsample.0", stride=stride)
        return self.norm(x, f"{name}.downsample.1")

    def conv(self, x, name, stride=1, padding=0, groups=1):
        [kernel] = [w.numpy() for w in self.model.get_layer(name).weights]  # and no bias
        parts = zip(np.split(x, groups, axis=3), np.split(kernel, groups, axis=3))
        y = [
            np.einsum("nhwcij,ijcd->nhwd", windows(part, len(k), stride, padding), k)
            for part, k in parts
        ]
        return np.concatenate(y, axis=3)

    def norm(self, x, name):
        gamma, beta, mean, variance = (w.numpy() for w in self.model.get_layer(name).weights)
        if self.training:
            mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta


def windows(x, size, stride, padding, fill=0.0):
    """NxHxWxCxsizexsize."""
    x = np.pad(x, ((0, 0), (padding,) * 2, (padding,) * 2, (0, 0)), constant_values=fill)
    x = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return x[:, ::stride, ::stride]


def relu(x):
    return np.maximum(x, 0)


def randomize_norms(model):
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if len(layer.weights) == 4:
            width = layer.weights[0].shape[0]
            mean, *others = rng.normal(size=width), *rng.uniform(0.5, 1.5, (2, width))
            layer.set_weights([others[0], rng.normal(size=width), mean, others[1]])


@pytest.mark.parametrize(
    "block, stem",
    (
        ("basic", "cifar"),
        ("basic", "imagenet"),
        ("bottleneck", "cifar"),
        ("grouped", "imagenet"),
        pytest.param("bottleneck", "imagenet", marks=pytest.mark.slow),
        pytest.param("grouped", "cifar", marks=pytest.mark.slow),
    ),
)
def test_forward_equals_oracle(block, stem):
    bottleneck, groups, depths = block != "basic", 4 if block == "grouped" else 1, (1, 2)
    name = "bottleneck" if bottleneck else "basic"
    model = resnet.ResNet(name, depths, width=16, groups=groups, group_width=8, stem=stem)
    randomize_norms(model)
    for size in ((16, 16), (19, 22)):
        x = np.random.default_rng(1).normal(size=(3, *size, 3)).astype(np.float32)
        for training in (False, True):
            expected = Oracle(model, training)(x, bottleneck, depths, groups, stem)
            np.testing.assert_allclose(model(x, training=training), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stem, last", (("imagenet", 1), ("cifar", 4)))
def test_shapes(stem, last):
    model = resnet.ResNet("bottleneck", (1, 1, 1, 1), width=4, stem=stem, channels=5)
    maps = keras.Model(model.input, model.get_layer("layer4.0.relu3").output)
    x = tf.zeros([2, 32, 32, 5])
    assert maps(x).shape == (2, last, last, 128)
    assert model(x).shape == model.compute_output_shape(x.shape) == (2, 128)


def test_wrong_stems_and_blocks_are_refused():
    with pytest.raises(ValueError, match='`stem` must be "imagenet" or "cifar".*\'stl\''):
        resnet.resnet18(stem="stl")
    with pytest.raises(ValueError, match='`block` must be "basic" or "bottleneck".*\'dense\''):
        resnet.ResNet("dense", (1, 1))


def test_bn_groups_reach_every_norm():
    model = resnet.ResNet("basic", (1, 1), width=4, stem="cifar", bn_group_size=2)
    norms = [layer for layer in model.layers if len(layer.weights) == 4]
    assert [layer.group_size for layer in norms] == [2] * 6


def test_saved_backbone_is_equal(tmp_path):
    model = resnet.ResNet("bottleneck", (1, 1), width=4, bn_group_size=2)
    model.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras")
    x = tf.random.normal([4, 16, 16, 3])
    for training in (True, False):
        np.testing.assert_array_equal(loaded(x, training=training), model(x, training=training))


def assert_uniform(values, limit):
    values = np.ravel(values)
    assert np.abs(values).max() <= limit
    assert np.abs(values).max() > 0.98 * limit
    np.testing.assert_allclose(values.std(), limit / math.sqrt(3), rtol=0.05)


def assert_normal(values, std):
    values = np.ravel(values) / std
    assert abs(values.mean()) < 0.03
    np.testing.assert_allclose(values.std(), 1, rtol=0.03)
    assert np.abs(values).max() > 3  # not truncated


def test_convolutions_start_as_torchvision_s():
    model = resnet.ResNet("bottleneck", (1, 1), width=64, groups=4, group_width=32)
    kernels = [w for w in model.trainable_variables if len(w.shape) == 4]
    assert len(kernels) == 9
    for kernel in kernels:
        height, width, _, outputs = kernel.shape
        assert_normal(kernel.numpy(), math.sqrt(2 / (height * width * outputs)))


def test_cifar_stem_starts_as_torch_s_default():
    model = resnet.ResNet("basic", (1,), width=64, stem="cifar")
    assert_uniform(model.get_layer("conv1").kernel.numpy(), 1 / math.sqrt(3 * 3 * 3))
    assert_normal(model.get_layer("layer1.0.conv1").kernel.numpy(), math.sqrt(2 / (9 * 64)))


def test_weights_differ_between_layers():
    model = resnet.ResNet("basic", (2,), width=4, stem="cifar")
    kernels = [w.numpy() for w in model.trainable_variables if w.shape == (3, 3, 4, 4)]
    assert len(kernels) == 4
    for a, b in itertools.combinations(kernels, 2):
        assert np.abs(a - b).max() > 0.01


def small(**options):
    """A bottleneck ResNet with random statistics."""
    keras.utils.set_random_seed(0)
    model = resnet.ResNet("bottleneck", (1, 1, 1, 1), width=4, stem="cifar", **options)
    randomize_norms(model)
    return model


def assert_same_weights(a, b):
    assert [v.path for v in a.variables] == [v.path for v in b.variables]
    for x, y in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_rebuilt_network_has_the_same_weights_and_other_settings():
    model = small(bn_group_size=2, name="mine")
    dense = model.rebuild(last_dilation=2, synchronized_bn=True)
    assert_same_weights(model, dense)
    assert (dense.last_dilation, dense.synchronized_bn, dense.bn_group_size) == (2, True, None)
    assert dense.get_layer("layer4.0.bn1").synchronized and dense.name == "mine"
    assert dense.get_layer("layer4.0.conv2").dilation_rate == (2, 2)
    maps = [keras.Model(m.input, m.get_layer("layer4.0.relu3").output) for m in (model, dense)]
    assert [m(tf.zeros([1, 32, 32, 3])).shape[1] for m in maps] == [4, 8]

    x = tf.random.normal([4, 16, 16, 3])
    grouped = small().rebuild(bn_group_size=2)
    np.testing.assert_array_equal(grouped(x, training=True), model(x, training=True))
    new = model.rebuild(new_weights=True)
    assert np.abs(new.get_weights()[0] - model.get_weights()[0]).max() > 0.01


def test_only_what_leaves_the_weights_alone_can_be_rebuilt():
    with pytest.raises(ValueError, match="can change last_dilation.*Received: width, stem"):
        small().rebuild(width=8, stem="imagenet")


def test_settings_survive_copies_files_and_frozen_layers(tmp_path):
    model = small(bn_group_size=2, dtype="mixed_bfloat16", frozen_layers=("conv1", "bn1"))
    model.save(tmp_path / "backbone.keras")
    for copy in (
        resnet.ResNet.from_config(model.get_config()),
        keras.models.load_model(tmp_path / "backbone.keras"),
        model.rebuild(),
    ):
        assert isinstance(copy, resnet.ResNet) and copy.get_config() == model.get_config()
        assert copy.get_layer("layer1.0.bn1").compute_dtype == "bfloat16"
        assert len(copy.trainable_variables) == len(model.trainable_variables)
        assert not copy.get_layer("conv1").trainable
    assert keras.config.dtype_policy().name == "float32"


def test_a_copy_starts_as_a_new_network_of_the_same_seed():
    keras.utils.set_random_seed(5)
    model = resnet.resnet18(width=4)
    keras.utils.set_random_seed(5)
    assert_same_weights(model.rebuild(new_weights=True), model)
