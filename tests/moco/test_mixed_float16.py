"""`fit` under mixed_float16: the loss is scaled, and scale and guard skip the same steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras_case import BATCHES, DIM, QUEUE, ROWS, moco, normalizing_encoder, pairs

from moco_tf import SGD


def trained_in(policy, replicas=None, **options):
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        with (replicas or tf.distribute.get_strategy()).scope():
            model = moco(normalizing_encoder, **options)
    finally:
        keras.config.set_dtype_policy(previous)
    before = [v.numpy() for v in model.trainable_variables]
    model.fit(pairs(), epochs=2, verbose=0)
    after = [v.numpy() for v in model.trainable_variables]
    return model, [b - a for a, b in zip(before, after)]


def scaled_by(scale):
    return lambda rate: keras.optimizers.LossScaleOptimizer(SGD(rate), initial_scale=scale)


# The default scale, 2**15, overflows in the first step on two replicas, whose BN groups are small.
@pytest.mark.parametrize(
    "replicas, optimizer",
    ((1, SGD), pytest.param(2, scaled_by(2.0**10), marks=pytest.mark.slow)),
    ids=("one", "replicas"),
)
def test_in_mixed_float16_weights_move_as_in_float32(replicas, optimizer, mirrored):
    """In 0.1.0 they moved 10,000 times too little."""
    _, want = trained_in("float32", mirrored(replicas), make_optimizer=SGD)
    model, got = trained_in("mixed_float16", mirrored(replicas), make_optimizer=optimizer)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert model.optimizer.iterations.numpy() == 2 * BATCHES
    got, want = (np.concatenate([x.ravel() for x in moves]) for moves in (got, want))
    assert np.linalg.norm(got - want) < 0.1 * np.linalg.norm(want)


def test_loss_scale_and_guard_agree_on_which_steps_count():
    model, _ = trained_in("mixed_float16", make_optimizer=scaled_by(2.0**18))
    total = 2 * BATCHES
    skipped = int(18 - np.log2(float(model.optimizer.dynamic_scale)))
    assert 0 < skipped < total
    assert int(model.optimizer.iterations) == total - skipped
    assert int(model.queue_ptr) == (total - skipped) * ROWS % QUEUE
    assert np.isfinite(model.history.history["loss"]).all()


def test_an_encoder_in_float16_scales_the_loss_whatever_the_policy_is():
    half = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.Flatten(),
            layers.Dense(DIM, dtype="mixed_float16"),
            layers.Activation("linear", dtype="float32"),
        ]
    )
    model = moco(lambda: half)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
