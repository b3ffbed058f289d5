"""SGD and schedules against the reference's formulas."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from moco_tf import SGD, Cosine, Steps


class TorchSGD:
    """`torch.optim.SGD` for one parameter."""

    def __init__(self, w, momentum, weight_decay):
        self.w, self.momentum, self.weight_decay = w.astype(np.float64), momentum, weight_decay
        self.buffer = None

    def step(self, gradient, learning_rate):
        d = gradient + self.weight_decay * self.w
        self.buffer = d if self.buffer is None else self.momentum * self.buffer + d
        self.w = self.w - learning_rate * self.buffer


SHAPES = {"kernel": (3, 2), "bias": (2,), "scale": ()}


@pytest.mark.parametrize("momentum, weight_decay", ((0.9, 1e-2), (0.9, 0.0), (0.0, 1e-2)))
def test_sgd_equals_torch_over_a_fall_of_the_rate(momentum, weight_decay):
    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    oracles = [TorchSGD(w, momentum, weight_decay) for w in start.values()]
    variables = [keras.Variable(w, dtype="float32", name=name) for name, w in start.items()]
    optimizer = SGD(Steps(0.1, [6]), momentum, weight_decay)
    for step in range(10):
        gradients = [rng.normal(size=v.shape).astype(np.float32) for v in variables]
        optimizer.apply([tf.constant(g) for g in gradients], variables)
        for oracle, gradient in zip(oracles, gradients):
            oracle.step(gradient, 0.1 if step < 6 else 0.01)
    for oracle, variable in zip(oracles, variables):
        np.testing.assert_allclose(variable.numpy(), oracle.w, rtol=0, atol=1e-6)


def test_a_layer_s_rate_is_multiplied_by_its_factor():
    backbone, head = keras.layers.Dense(2, name="body"), keras.layers.Dense(2, name="fc")
    keras.Sequential([keras.Input((3,)), backbone, head])
    for layer, factor in ((backbone, 1.0), (head, 10.0)):
        variable, before = layer.kernel, layer.kernel.numpy().astype(np.float64)
        oracle = TorchSGD(before, 0.9, 0.1)
        optimizer = SGD(0.01, 0.9, 0.1, factors={"fc": 10.0})
        for _ in range(3):
            optimizer.apply([tf.ones(variable.shape)], [variable])
            oracle.step(np.ones(variable.shape), 0.01 * factor)
        np.testing.assert_allclose(variable.numpy(), oracle.w, rtol=0, atol=1e-6)


def test_some_weights_do_not_decay():
    variables = [keras.Variable([2.0], name=name) for name in ("kernel", "gamma")]
    optimizer = SGD(0.1, weight_decay=0.5, undecayed=("gamma", "beta"))
    for _ in range(2):
        optimizer.apply([tf.zeros(1)] * 2, variables)
    assert variables[1].numpy() == [2.0] and variables[0].numpy() < 1.9
    assert SGD.from_config(optimizer.get_config()).undecayed == ("gamma", "beta")


def test_sgd_follows_a_rate_set_from_outside():
    variable, optimizer = keras.Variable([1.0]), SGD(0.1, momentum=0.9)
    optimizer.apply([tf.constant([1.0])], [variable])
    optimizer.learning_rate = 0.01
    optimizer.apply([tf.constant([1.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [1 - 0.1 - 0.01 * 1.9], atol=1e-7)


def test_every_replica_s_gradient_counts_once(mirrored):
    strategy = mirrored(2)
    with strategy.scope():
        variable, optimizer = keras.Variable([1.0]), SGD(0.1, weight_decay=0.5)
        optimizer.build([variable])

    @tf.function
    def step(gradient):
        strategy.run(lambda g: optimizer.apply([g], [variable]), (gradient,))

    values = strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant([1.0 + context.replica_id_in_sync_group])
    )
    step(values)
    expected = 1 - 0.1 * (1 + 2 + 0.5)
    for value in strategy.experimental_local_results(variable.value):
        np.testing.assert_allclose(value.numpy(), [expected], atol=1e-6)


def rates(schedule, steps):
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


def test_cosine_is_v2_s():
    steps_per_epoch = 5
    schedule = Cosine(0.03, epochs=200, steps_per_epoch=steps_per_epoch)
    epochs = np.array([0, 1, 50, 100, 199])
    expected = 0.03 * 0.5 * (1 + np.cos(np.pi * epochs / 200))
    for offset in (0, steps_per_epoch - 1):  # it stands still within an epoch
        steps = epochs * steps_per_epoch + offset
        np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5, atol=1e-9)
    assert rates(schedule, [0, 500]) == [pytest.approx(0.03), pytest.approx(0.015)]


def test_cosine_of_the_cifar_demo_counts_epochs_from_one():
    schedule = Cosine(0.06, epochs=200, steps_per_epoch=97, first_epoch=1)
    expected = [0.06 * 0.5 * (1 + math.cos(math.pi * epoch / 200)) for epoch in (1, 1, 2, 200)]
    steps = [0, 96, 97, 199 * 97]
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5, atol=1e-9)


def test_steps_are_v1_s():
    n = 5004  # steps in an epoch of ImageNet
    schedule = Steps(0.03, milestones=[120 * n, 160 * n])
    steps = [0, 120 * n - 1, 120 * n, 160 * n - 1, 160 * n, 200 * n]
    expected = [0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003]
    np.testing.assert_allclose(rates(schedule, steps), expected, rtol=1e-5)


def test_steps_take_another_factor():
    np.testing.assert_allclose(rates(Steps(1.0, [1, 2], 0.5), range(4)), [1, 0.5, 0.25, 0.25])


@pytest.mark.parametrize("make", (Cosine, Steps))
def test_warm_up_is_detectron2_s(make):
    """facebookresearch/detectron2, detectron2/solver/lr_scheduler.py, _get_warmup_factor_at_iter,
    with SOLVER.WARMUP_FACTOR 1.0 / 1000 of detectron2/config/defaults.py.
    """
    arguments = {"epochs": 10, "steps_per_epoch": 10} if make is Cosine else {"milestones": [50]}
    warm, cold = make(0.4, warmup_steps=4, **arguments), make(0.4, **arguments)
    alpha = np.arange(4) / 4
    np.testing.assert_allclose(rates(warm, range(4)), 0.4 * (0.001 * (1 - alpha) + alpha), 1e-6)
    warm = make(0.4, warmup_steps=4, warmup_factor=0.1, **arguments)
    np.testing.assert_allclose(rates(warm, range(4)), 0.4 * (0.1 * (1 - alpha) + alpha), 1e-6)
    assert rates(warm, range(4, 60)) == rates(cold, range(4, 60))


@pytest.mark.parametrize(
    "schedule",
    (
        Cosine(0.06, epochs=8, steps_per_epoch=3, first_epoch=1, warmup_steps=2, warmup_factor=0.1),
        Steps(0.03, milestones=[5, 9], factor=0.2, warmup_steps=3),
    ),
    ids=("cosine", "steps"),
)
def test_serialisation_round_trip(schedule):
    optimizer = SGD(schedule, momentum=0.8, weight_decay=1e-4)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert isinstance(restored, SGD)
    assert (restored.momentum, restored.l2) == (0.8, 1e-4)
    assert restored.get_config() == optimizer.get_config()
    again = type(schedule).from_config(schedule.get_config())
    assert again.get_config() == schedule.get_config()
    for other in (again, restored._learning_rate):
        assert isinstance(other, type(schedule))
        assert rates(other, range(20)) == rates(schedule, range(20))


def test_serialised_sgd_takes_the_same_steps():
    def train(optimizer):
        variable = keras.Variable([1.0, -2.0])
        for gradient in ([0.5, 1.0], [1.5, -1.0]):
            optimizer.apply([tf.constant(gradient)], [variable])
        return variable.numpy()

    optimizer = SGD(0.1, momentum=0.5, weight_decay=0.1)
    restored = SGD.from_config(optimizer.get_config())
    np.testing.assert_array_equal(train(optimizer), train(restored))
