"""The smallest `MoCo`, and its data, for tests of what Keras does with it.

The encoder is one dense layer, so that hardly more than Keras itself is run.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from moco_tf import SGD, BatchNorm, MoCo

ROWS, BATCHES, DIM, QUEUE = 8, 4, 5, 16
X_Q, X_K = np.random.default_rng(0).normal(size=(2, ROWS * BATCHES, 4, 4, 3)).astype(np.float32)
LABELS = np.arange(ROWS * BATCHES) % 3


def encoder(side_px=4):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((side_px, side_px, 3)), layers.Flatten(), layers.Dense(DIM)]
    )


def normalizing_encoder():
    keras.utils.set_random_seed(1)
    stem = [keras.Input((4, 4, 3)), layers.Conv2D(4, 3), BatchNorm(), layers.ReLU()]
    head = [layers.Flatten(), layers.Dense(DIM), layers.Activation("linear", dtype="float32")]
    return keras.Sequential([*stem, *head])


def moco(make_encoder=encoder, make_optimizer=SGD, **options):
    options = {"queue_size": QUEUE, "momentum": 0.9, "temperature": 0.2, **options}
    model = MoCo(make_encoder(), **options)
    model.compile(make_optimizer(0.1))
    return model


def pairs(rows=ROWS):
    return tf.data.Dataset.from_tensor_slices((X_Q, X_K)).batch(rows, drop_remainder=True)


def state(model):
    return [v.numpy() for v in model.variables]


def assert_equal_states(got, want, atol=0):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)
