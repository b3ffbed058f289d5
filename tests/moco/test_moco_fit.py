"""`MoCo` as any Keras model: compile, fit, callbacks, files, and what it refuses."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from moco_case import ROWS, Case, assert_close, expected, inject, model_state

from moco_tf import SGD, MoCo

CASE = Case(group_size=2, steps=4)


def dataset(case=CASE):
    """Pairs of views, in the batches of the case."""
    x_q, x_k = np.concatenate(case.views(), axis=1)
    return tf.data.Dataset.from_tensor_slices((x_q, x_k)).batch(ROWS, drop_remainder=True)


@pytest.mark.parametrize("replicas", (1, 2))
def test_fit_equals_oracle(replicas, mirrored, monkeypatch):
    case = Case(replicas=replicas, group_size=2, steps=4)
    inject(case.orders(), monkeypatch)
    with mirrored(replicas).scope():
        model = case.model()
    history = model.fit(dataset(case), epochs=2, steps_per_epoch=2, verbose=0).history

    state, logs = expected(case)
    of_epochs = logs.mean(axis=2).reshape(2, 2, 3).mean(axis=1)
    means = np.stack([history[name] for name in ("loss", "top1", "top5")], axis=1)
    np.testing.assert_allclose(means, of_epochs, rtol=0, atol=1e-5)
    assert_close(model_state(model), state)


def test_fit_shuffles_by_the_seed_and_the_step():
    def loss(**kwargs):
        return CASE.model(**kwargs).fit(dataset(), verbose=0).history["loss"]

    assert loss(seed=1) == loss(seed=1)
    assert loss(seed=1) != loss(seed=1, shuffle=False)


def test_keras_callbacks_work(tmp_path):
    ended = []
    callbacks = [
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda step, logs: ended.append(step)),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
    ]
    model = CASE.model()
    history = model.fit(dataset(), epochs=2, verbose=0, callbacks=callbacks).history
    assert ended == [0, 1, 2, 3] * 2
    with open(tmp_path / "log.csv") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-6)

    restored = CASE.model(seed=5)
    restored.load_weights(tmp_path / "2.weights.h5")
    assert_close(model_state(restored), model_state(model), atol=0)


def test_trained_encoder_is_a_keras_file(tmp_path):
    model = CASE.model()
    model.fit(dataset(), verbose=0)
    model.encoder_q.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    images = CASE.views()[0, 0]
    for training in (False, True):
        embeddings = loaded(images, training=training)
        np.testing.assert_array_equal(embeddings, model(images, training=training))


def test_training_goes_on_exactly_from_saved_weights(tmp_path):
    first, second = CASE.views()[:2]
    model = CASE.model(shuffle=False)
    model.step(tuple(first))
    model.save_weights(tmp_path / "moco.weights.h5")
    restored = CASE.model(shuffle=False)
    restored.load_weights(tmp_path / "moco.weights.h5")
    assert_close(model_state(restored), model_state(model), atol=0)
    assert restored.step(tuple(second))["loss"] == model.step(tuple(second))["loss"]


def test_default_optimizer_and_keras_optimizers_train():
    for optimizer in ("sgd", keras.optimizers.Adam(1e-3)):
        model = MoCo(CASE.encoder(), queue_size=ROWS)
        model.compile(optimizer)
        assert np.isfinite(model.fit(dataset(), verbose=0).history["loss"][0])


def test_only_the_query_encoder_is_trained():
    model = MoCo(CASE.encoder(), queue_size=ROWS, momentum=1.0)
    model.compile(SGD(0.1))
    queries = [v.numpy() for v in model.encoder_q.trainable_variables]
    keys = [v.numpy() for v in model.encoder_k.trainable_variables]
    model.fit(dataset(), verbose=0)
    for before, v in zip(queries, model.encoder_q.trainable_variables):
        assert np.abs(before - v.numpy()).max() > 0, v.path
    for before, v in zip(keys, model.encoder_k.trainable_variables):
        np.testing.assert_array_equal(before, v.numpy(), v.path)
    assert model.trainable_variables == model.encoder_q.trainable_variables
    assert len(model.optimizer.velocities) == len(queries)


def test_call_gives_query_embeddings():
    model = CASE.model()
    images = CASE.views()[0, 0]
    np.testing.assert_array_equal(model.predict(images, verbose=0), model.encoder_q(images))


def test_encoders_start_equal():
    model = CASE.model()
    assert model.encoder_k is not model.encoder_q
    for q, k in zip(model.encoder_q.weights, model.encoder_k.weights):
        assert q is not k
        np.testing.assert_array_equal(q.numpy(), k.numpy(), q.path)


def test_a_key_encoder_of_another_size_is_no_silent_half():
    model = CASE.model()
    encoder = CASE.encoder()
    longer = keras.layers.Dense(encoder.output_shape[-1])(encoder.output)
    model.encoder_k = keras.Model(encoder.input, longer)
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        model.step(tuple(CASE.views()[0]))


class Subclass(keras.Model):
    def __init__(self, head):
        super().__init__()
        self.average = keras.layers.GlobalAveragePooling2D()
        self.head = head

    def call(self, images, training=False):
        return self.head(self.average(images))

    def get_config(self):
        return {"head": keras.saving.serialize_keras_object(self.head)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["head"]))


def test_an_encoder_that_cannot_be_cloned_is_refused_and_may_be_wrapped():
    encoder = Subclass(keras.layers.Dense(3))
    images = keras.Input(CASE.views().shape[3:])
    wrapped = keras.Model(images, encoder(images))
    unbuilt = keras.Sequential([keras.layers.Flatten()])
    for bad in (encoder, unbuilt):
        with pytest.raises(ValueError, match=r"functional or a built Sequential.*Received: "):
            MoCo(bad)
    model = MoCo(wrapped, queue_size=ROWS)
    model.compile(SGD())
    assert np.isfinite(model.fit(dataset(), verbose=0).history["loss"][0])


def test_the_whole_model_round_trips(tmp_path):
    model = CASE.model()
    model.fit(dataset(), verbose=0)
    model.save(tmp_path / "moco.keras")
    again = keras.models.load_model(tmp_path / "moco.keras")
    for want, got in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(want, got, err_msg=want.path)
    assert again.optimizer.iterations == model.optimizer.iterations
    assert np.isfinite(again.fit(dataset(), verbose=0).history["loss"][-1])


@pytest.mark.parametrize(
    "change",
    (lambda q, k: q, lambda q, k: (q, k, q)),
    ids=("one view", "three"),
)
def test_dataset_of_another_structure_is_refused(change):
    with pytest.raises(ValueError, match=r"The dataset must yield `\(x_q, x_k\)`"):
        CASE.model().fit(dataset().map(change), verbose=0)


def test_batch_of_unknown_size_is_refused():
    data = dataset().unbatch().batch(ROWS)
    with pytest.raises(ValueError, match=r"batch size must be fixed.*drop_remainder=True"):
        CASE.model().fit(data, verbose=0)
