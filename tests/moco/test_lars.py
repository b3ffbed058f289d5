"""LARS, AdamW and the cosine after the warm-up against formulas of the public code and torch."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
import torch

from moco_tf import LARS, Cosine
from moco_tf.training import plan


class ReferenceLARS:
    """moco/optimizer.py of facebookresearch/moco-v3, for one parameter."""

    def __init__(self, w, decay, momentum=0.9, trust=0.001):
        self.w, self.decay, self.momentum, self.trust = w.astype(np.float64), decay, momentum, trust
        self.mu = np.zeros(w.shape)

    def step(self, g, rate):
        if self.w.ndim > 1:
            g = g + self.decay * self.w
            norms = np.linalg.norm(self.w), np.linalg.norm(g)
            g = g * (self.trust * norms[0] / norms[1] if min(norms) > 0 else 1)
        self.mu = self.momentum * self.mu + g
        self.w = self.w - rate * self.mu


def test_lars_is_that_of_the_public_code():
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}
    start |= {"conv": rng.normal(size=(3, 3, 2, 4)), "zero": np.zeros((2, 2))}
    oracles = [ReferenceLARS(w, decay=0.1) for w in start.values()]
    variables = [keras.Variable(w, dtype="float32", name=name) for name, w in start.items()]
    optimizer = LARS(4.0, weight_decay=0.1)
    for step in range(4):
        gradients = [rng.normal(size=v.shape).astype(np.float32) for v in variables]
        gradients[0] *= step != 0  # a gradient of zeros
        optimizer.apply([tf.constant(g) for g in gradients], variables)
        for oracle, gradient in zip(oracles, gradients, strict=True):
            oracle.step(gradient, 4.0)
    for oracle, variable in zip(oracles, variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), oracle.w, rtol=1e-5, atol=1e-5)


def test_lars_is_made_again_from_its_config():
    optimizer = LARS(0.3, momentum=0.8, weight_decay=1e-6, trust_coefficient=0.01)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert isinstance(again, LARS) and again.get_config() == optimizer.get_config()


def test_lars_skips_a_gradient_that_is_not_finite():
    variable = keras.Variable([[1.0, 2.0]])
    LARS(0.3).apply([tf.constant([[float("nan"), 1.0]])], [variable])
    np.testing.assert_array_equal(variable.numpy(), [[1, 2]])


def test_adamw_of_a_config_is_torchs():
    config = tiny.config(
        optimizer__name="adamw",
        optimizer__learning_rate=0.1,
        optimizer__reference_batch=16,
        optimizer__weight_decay=0.1,
        optimizer__schedule="step",
        optimizer__milestones=(0.9,),
    )
    start = np.random.default_rng(1).normal(size=(3, 2)).astype(np.float32)
    parameter = torch.nn.Parameter(torch.tensor(start))
    twin = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.1)
    variable, optimizer = keras.Variable(start), plan.make_optimizer(config, epoch=100)
    for step in range(5):
        gradient = np.random.default_rng(step).normal(size=(3, 2)).astype(np.float32)
        optimizer.apply([tf.constant(gradient)], [variable])
        parameter.grad = torch.tensor(gradient)
        twin.step()
    np.testing.assert_allclose(variable.numpy(), parameter.detach().numpy(), rtol=0, atol=1e-5)


def reference_rate(epoch, rate, warmup, epochs):
    """adjust_learning_rate of main_moco.py of facebookresearch/moco-v3."""
    if epoch < warmup:
        return rate * epoch / warmup
    return rate * 0.5 * (1 + np.cos(np.pi * (epoch - warmup) / (epochs - warmup)))


def test_cosine_after_warmup_is_v3s():
    config = tiny.config(
        optimizer__schedule="cosine_after_warmup",
        optimizer__learning_rate=0.6,
        optimizer__warmup_epochs=2.0,
        optimizer__warmup_factor=0.0,
        epochs=10,
    )
    schedule = plan.make_schedule(config, 7)
    want = [reference_rate(step / 7, 0.6 * 16 / 256, 2, 10) for step in range(70)]
    got = [float(schedule(tf.constant(step, tf.int64))) for step in range(70)]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-8)
    assert Cosine.from_config(schedule.get_config()).get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"warmup_epochs": 1.0}, "optimizer.warmup_epochs` must be below the length of the run"),
        ({"first_epoch": 1}, "optimizer.first_epoch` must be 0 with schedule=cosine_after_warmup"),
    ],
)
def test_what_a_cosine_after_the_warmup_cannot_be(wrong, text):
    values = {f"optimizer__{name}": value for name, value in wrong.items()}
    with pytest.raises(ValueError, match=text):
        tiny.config(optimizer__schedule="cosine_after_warmup", **values)
