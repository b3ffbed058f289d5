"""`BatchNorm` against NumPy, with torch's conventions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from moco_tf import BatchNorm

CHANNELS = 4


def images(rows=6, height=3, width=5):
    """float32 maps with a different mean and spread in each row and channel."""
    rng = np.random.default_rng(0)
    spread, mean = rng.uniform(0.5, 3, (2, rows, 1, 1, CHANNELS))
    return (spread * rng.normal(size=(rows, height, width, CHANNELS)) + mean).astype(np.float32)


def layer(**kwargs):
    """A built layer with parameters and statistics off their start."""
    norm = BatchNorm(**kwargs)
    norm.build((None, None, None, CHANNELS))
    rng = np.random.default_rng(1)
    norm.set_weights([rng.uniform(0.5, 2, CHANNELS) for _ in norm.weights])
    return norm


def parameters(bn):
    variables = bn.gamma, bn.beta, bn.moving_mean, bn.moving_variance
    return [v.numpy().astype(np.float64) for v in variables]


def normalize(x, mean, variance, gamma, beta, epsilon=1e-5):
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def train_oracle(bn, x, group_size):
    """Output and new running statistics."""
    gamma, beta, mean, variance = parameters(bn)
    groups = np.split(x.astype(np.float64), len(x) // group_size)
    y = [normalize(g, g.mean((0, 1, 2)), g.var((0, 1, 2)), gamma, beta) for g in groups]
    means = [g.mean((0, 1, 2)) for g in groups]
    variances = [g.var((0, 1, 2), ddof=1) for g in groups]
    mean = 0.9 * mean + 0.1 * np.mean(means, axis=0)
    return np.concatenate(y), mean, 0.9 * variance + 0.1 * np.mean(variances, axis=0)


@pytest.mark.parametrize("group_size, rows_together", ((None, 6), (6, 6), (3, 3), (2, 2), (1, 1)))
def test_training_equals_oracle(group_size, rows_together):
    bn, x = layer(group_size=group_size), images()
    y, mean, variance = train_oracle(bn, x, rows_together)
    np.testing.assert_allclose(bn(x, training=True), y, atol=2e-5)
    np.testing.assert_allclose(bn.moving_mean.numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(bn.moving_variance.numpy(), variance, rtol=1e-5)


def test_synchronized_replicas_equal_one_batch(mirrored):
    strategy, x = mirrored(2), images()
    y, mean, variance = train_oracle(layer(), x, len(x))
    with strategy.scope():
        bn = layer(synchronized=True)

    def replica():
        rows = len(x) // 2
        first = rows * tf.distribute.get_replica_context().replica_id_in_sync_group
        return bn(tf.constant(x)[first : first + rows], training=True)

    parts = strategy.experimental_local_results(tf.function(lambda: strategy.run(replica))())
    np.testing.assert_allclose(np.concatenate(parts), y, atol=2e-5)
    for variable, value in ((bn.moving_mean, mean), (bn.moving_variance, variance)):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-5)


@pytest.mark.parametrize("frozen", (False, True))
def test_inference_equals_oracle(frozen):
    bn, x = layer(group_size=4), images()  # 6 rows are no whole number of groups
    bn.trainable = not frozen
    gamma, beta, mean, variance = before = parameters(bn)
    expected = normalize(x, mean, variance, gamma, beta)
    np.testing.assert_allclose(bn(x, training=frozen), expected, atol=2e-5)
    for old, new in zip(before, parameters(bn)):
        np.testing.assert_array_equal(old, new)


def test_momentum_and_epsilon_are_used():
    bn, x = layer(momentum=0.0, epsilon=0.5), images()
    gamma, beta, *_ = parameters(bn)
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = normalize(x, mean, variance, gamma, beta, epsilon=0.5)
    np.testing.assert_allclose(bn(x, training=True), expected, atol=2e-5)
    np.testing.assert_allclose(bn.moving_mean.numpy(), mean, atol=1e-6)


def test_gradient_with_groups_is_that_of_separate_batches():
    x, weights = tf.constant(images()), tf.constant(images()[::-1])

    def gradients(bn, size):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.concat([bn(part, training=True) for part in tf.split(x, 6 // size)], axis=0)
            loss = tf.reduce_sum(weights * y**2)
        return tape.gradient(loss, [x, bn.gamma.value, bn.beta.value])

    grouped, separate = gradients(layer(group_size=2), 6), gradients(layer(), 2)
    for a, b in zip(grouped, separate):
        assert np.abs(b).max() > 0.1
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_mixed_precision_computes_in_bfloat16_and_keeps_statistics_in_float32():
    bn = layer(dtype="mixed_bfloat16", group_size=2)
    x = tf.cast(images(), tf.bfloat16)
    y, mean, variance = train_oracle(bn, np.asarray(tf.cast(x, tf.float32)), 2)
    result = bn(x, training=True)
    assert result.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(result, tf.float32), y, rtol=0.02, atol=0.02)
    assert {v.dtype for v in bn.weights} == {"float32"}
    np.testing.assert_allclose(bn.moving_mean.numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(bn.moving_variance.numpy(), variance, rtol=1e-4)


@pytest.mark.parametrize("rows", (5, None))
def test_training_needs_whole_groups(rows):
    bn = layer(group_size=2)
    step = tf.function(lambda x: bn(x, training=True))
    text = rf"known multiple of `group_size`. Received: {rows} rows, group_size=2"
    with pytest.raises(ValueError, match=text):
        step.get_concrete_function(tf.TensorSpec([rows, 3, 5, CHANNELS]))


def test_without_groups_the_batch_may_be_unknown():
    bn, x = layer(), images()
    y = train_oracle(bn, x, len(x))[0]
    step = tf.function(lambda x: bn(x, training=True))
    step = step.get_concrete_function(tf.TensorSpec([None, *x.shape[1:]]))
    np.testing.assert_allclose(step(tf.constant(x)), y, atol=2e-5)


def test_starts_as_the_identity_of_standardised_maps():
    bn = BatchNorm()
    bn.build((None, None, None, CHANNELS))
    for variable, value in zip(parameters(bn), (1, 0, 0, 1)):
        np.testing.assert_array_equal(variable, value)


def test_config_round_trip():
    bn = BatchNorm(group_size=8, momentum=0.8, epsilon=1e-3)
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(bn))
    assert restored.get_config() == bn.get_config()
    assert (restored.group_size, restored.momentum, restored.epsilon) == (8, 0.8, 1e-3)
