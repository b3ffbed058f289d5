"""`MoCoV3` against an independent simulation, over five steps, on one replica and more."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from moco_case import ROWS, assert_close, distributed
from v3_oracle import Predictor, V3Oracle

from moco_tf import SGD, BatchNorm, Encoder, MoCoV3, heads

DIM, HIDDEN, STEPS = 5, 16, 5  # so many that no row of the predictor has dead units alone
TAU = 0.4  # not .5, for which 2 tau is 1
SGD_ARGS = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-3}


def encoder():
    """One convolution with BN, and a projector."""
    keras.utils.set_random_seed(1)
    images = keras.Input([8, 8, 3])
    x = keras.layers.Conv2D(6, 3, strides=2, use_bias=False)(images)
    x = keras.layers.ReLU()(BatchNorm(synchronized=True)(x))
    backbone = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    return Encoder(backbone, heads.mlp_bn(DIM, HIDDEN))


def make(**kwargs):
    settings = {"hidden": HIDDEN, "momentum": 0.9, "total_steps": STEPS, "temperature": TAU}
    model = MoCoV3(encoder(), **settings | kwargs)
    model.compile(SGD(**SGD_ARGS))
    model.optimizer.build(model.trainable_variables)
    return model


def views():
    """Both views of all steps: float32 steps x 2 x ROWS x 8 x 8 x 3."""
    shape = STEPS, 2, ROWS, 8, 8, 3
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def weights_of(predictor):
    """Weights of a predictor by torch's names, as arrays."""
    torch = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
    torch |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    return {
        f"{layer.name.removeprefix('predictor.')}.{torch[v.name]}": v.numpy()
        for layer in predictor.layers
        for v in layer.weights
    }


def oracle(model):
    predictor = model.predictor and Predictor(weights_of(model.predictor))
    sgd = tuple(SGD_ARGS.values())
    return V3Oracle(encoder(), encoder(), predictor, 0.9, STEPS, model.temperature, sgd)


def assert_same(model, twin):
    ours = [*model.encoder_q.weights, *model.encoder_k.weights]
    want = [*twin.encoder_q.weights, *twin.encoder_k.weights]
    for a, b in zip(ours, want, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=5e-5, err_msg=a.path)
    if model.predictor:
        names = ("0.weight", "1.weight", "1.bias", "3.weight")
        want = dict(zip(names, (v.numpy() for v in twin.predictor.parameters), strict=True))
        want |= {"1.running_mean": twin.predictor.mean, "1.running_var": twin.predictor.variance}
        assert_close(weights_of(model.predictor), want, atol=5e-5)


@pytest.mark.parametrize(
    "replicas, options",
    [
        (1, {}),
        (2, {}),
        pytest.param(4, {}, marks=pytest.mark.slow),
        (1, {"predictor_layers": 0, "temperature": 0.2}),
    ],
    ids=("1 replica", "2 replicas", "4 replicas", "no predictor"),
)
def test_five_steps_equal_the_simulation(replicas, options, mirrored):
    strategy = mirrored(replicas)
    with strategy.scope():
        model = make(**options)
    twin = oracle(model)
    step = tf.function(lambda batch: strategy.run(model.step, (batch,)), autograph=False)
    for x1, x2 in views():
        logs = step(distributed(strategy, (x1, x2)))
        losses = np.array(strategy.experimental_local_results(logs["loss"]))
        want = [side.reshape(replicas, -1).mean(axis=1) for side in twin.step(x1, x2)]
        np.testing.assert_allclose(losses, sum(want), rtol=0, atol=1e-4)
    assert_same(model, twin)


def test_micro_batches_meet_the_negatives_of_the_whole_batch():
    """As MoCo's do: with the BN groups of the micro-batches, the loss is that of one large step."""
    x1, x2 = views()[0]
    logs = make(gradient_accumulation=2).step((x1, x2))
    model, rows = make(), tf.range(ROWS)

    def encode(network, x):
        """Unit rows; each half of the batch has BN statistics of its own."""
        parts = [network(half, training=True) for half in np.split(x, 2)]
        return tf.math.l2_normalize(tf.concat(parts, axis=0), axis=1)

    q1, q2 = encode(model.queries, x1), encode(model.queries, x2)
    k1, k2 = encode(model.encoder_k, x1), encode(model.encoder_k, x2)
    want = model.contrast(q1, k2, rows)["loss"] + model.contrast(q2, k1, rows)["loss"]
    np.testing.assert_allclose(logs["loss"], want, atol=1e-5)


def test_the_momentum_rises_from_its_start_to_1_by_half_a_cosine():
    model = make(total_steps=1000)
    for step in (0, 1, 500, 999, 1000):
        want = 0.5 * (1 + np.cos(np.pi * step / 1000)) * 0.1
        m, rest = model.momentum_at(tf.constant(step, tf.int64))
        np.testing.assert_allclose(rest, want, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(m, 1 - want, rtol=1e-6)
    assert make(momentum_schedule="constant", total_steps=None).momentum_at(7) == (0.9, 1 - 0.9)


def test_a_score_is_the_loss_in_inference_mode():
    model, (x1, x2) = make(), views()[0]
    before = [v.numpy() for v in model.variables]
    score = model.score((x1, x2))

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    want, tops = 0, []
    for x, y in ((x1, x2), (x2, x1)):
        q = unit(model.predictor(model.encoder_q(x)).numpy())
        logits = q @ unit(model.encoder_k(y).numpy()).T / TAU
        want += np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
        tops.append(np.mean(logits.argmax(axis=1) == np.arange(ROWS)))
    np.testing.assert_allclose(score["loss"], want * 2 * TAU, rtol=1e-5)
    np.testing.assert_allclose(score["top1"], np.mean(tops), rtol=1e-6)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_it_is_made_again_from_its_config_and_its_file(tmp_path):
    model = make(predictor_bn=True)
    again = MoCoV3.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    model.save(tmp_path / "v3.keras")
    loaded = keras.models.load_model(tmp_path / "v3.keras")
    for a, b in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), a.path)
    assert [layer.name for layer in loaded.predictor.layers][-1] == "predictor.4"


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"total_steps": None}, "`total_steps` must be positive with momentum_schedule='cosine'"),
        ({"momentum_schedule": "linear"}, "must be cosine or constant.*linear"),
        ({"predictor_layers": -1}, "`predictor_layers` must be at least 0"),
        ({"momentum": 1.5}, r"`momentum` must be in \[0, 1\]"),
    ],
)
def test_a_wrong_argument_is_named(wrong, text):
    with pytest.raises(ValueError, match=text):
        make(**wrong)
