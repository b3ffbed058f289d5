"""v3's MLPs against torch's layers with the same weights, in training and inference."""

import itertools

import keras
import numpy as np
import pytest
import torch

from moco_tf import BatchNorm, heads
from moco_tf.interop.plain_keras import plain_keras


def torch_mlp(sizes, last_bn):
    """Linear layers without biases, each followed by BN and ReLU; the last by BN alone, if any."""
    layers = []
    for i, (width, units) in enumerate(itertools.pairwise(sizes)):
        is_last = i == len(sizes) - 2
        layers.append(torch.nn.Linear(width, units, bias=False))
        if not is_last:
            layers += [torch.nn.BatchNorm1d(units), torch.nn.ReLU()]
        elif last_bn:
            layers.append(torch.nn.BatchNorm1d(units, affine=False))
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("num_layers, last_bn", ((2, True), (2, False), (3, True)))
def test_it_is_torchs(num_layers, last_bn):
    inputs = keras.Input([4])
    outputs = heads.mlp_bn(3, 5, num_layers, last_bn)(inputs)
    model = keras.Model(inputs, outputs)
    twin = torch_mlp([4, *[5] * (num_layers - 1), 3], last_bn)
    rng = np.random.default_rng(0)
    for layer in model.layers[1:]:
        module = twin[int(layer.name.removeprefix("fc."))]
        assert len(layer.weights) == len([*module.parameters()]) + (2 * hasattr(module, "eps"))
        if layer.weights and not hasattr(module, "eps"):
            module.weight.data = torch.tensor(layer.kernel.numpy().T)
        elif layer.weights and layer.affine:
            layer.gamma.assign(rng.uniform(0.5, 2, 5))
            layer.beta.assign(rng.normal(size=5))
            module.weight.data = torch.tensor(layer.gamma.numpy())
            module.bias.data = torch.tensor(layer.beta.numpy())
    for _ in range(2):
        x = rng.normal(size=(6, 4)).astype(np.float32)
        want = twin(torch.tensor(x)).detach().numpy()
        np.testing.assert_allclose(model(x, training=True), want, atol=1e-5)
    want = twin.eval()(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(model(x), want, atol=1e-5)


def test_hidden_layers_are_as_wide_as_the_inputs_by_default():
    model = keras.Model(x := keras.Input([4]), heads.mlp_bn(3, None)(x))
    assert model.get_layer("fc.0").units == 4 and model.get_layer("fc.3").units == 3


def test_bn_without_scale_and_offset_becomes_keras_own():
    images = keras.Input([4, 4, 3])
    x = BatchNorm(affine=False)(images)
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    model.layers[1].moving_mean.assign([1.0, 2.0, 3.0])
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(plain_keras(model)(x), model(x), atol=1e-5)
