"""What Keras' users do with a model: validation, callbacks, copies and files."""

import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras_case import (
    BATCHES,
    DIM,
    QUEUE,
    ROWS,
    X_K,
    X_Q,
    assert_equal_states,
    encoder,
    moco,
    normalizing_encoder,
    pairs,
    state,
)

from moco_tf import SGD, EndToEnd, MemoryBank, MoCo
from moco_tf.data.recipes import moco as recipes
from moco_tf.data.sources import from_arrays
from moco_tf.probes import features
from moco_tf.probes.monitor import Monitor

# validation -------------------------------------------------------------------------------------


def scores(model, x_q, x_k):
    """Loss, top-1 and top-5 by NumPy: each key against the queue as it is."""
    q, k = (np.asarray(net(x)) for net, x in ((model.encoder_q, x_q), (model.encoder_k, x_k)))
    q, k = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k))
    logits = np.concatenate([(q * k).sum(axis=1)[:, None], q @ model.queue.numpy().T], axis=1)
    shifted = logits / 0.2 - (logits / 0.2).max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[:, 0]
    rank = (logits[:, 1:] > logits[:, :1]).sum(axis=1)
    return np.array([losses.mean(), (rank < 1).mean(), (rank < 5).mean()])


@pytest.mark.parametrize("symmetric", (pytest.param(False, marks=pytest.mark.slow), True))
def test_evaluation_measures_and_moves_nothing(symmetric):
    """In 0.1.0 there was none: "No loss to compute"."""
    model = moco(normalizing_encoder, symmetric=symmetric)
    model.fit(pairs(), verbose=0)
    before = state(model)
    got = model.evaluate(pairs(), verbose=0, return_dict=True)
    want = scores(model, X_Q, X_K)
    if symmetric:
        other = scores(model, X_K, X_Q)
        want = np.array([want[0] + other[0], *(want + other)[1:] / 2])
    np.testing.assert_allclose([got[name] for name in model.METRICS], want, rtol=1e-4)
    assert_equal_states(state(model), before)
    # The last of 5 + 5 + 5 + 5 + 5 + 5 + 2 rows weighs as much as the first.
    uneven = model.evaluate(X_Q, X_K, batch_size=5, verbose=0)
    np.testing.assert_allclose(uneven, want, rtol=1e-4)
    np.testing.assert_allclose(model.test_on_batch(X_Q, X_K), want, rtol=1e-4)


def test_evaluation_on_replicas_is_that_of_one(mirrored):
    with mirrored(2).scope():
        model = moco(shuffle=False)
    got = model.evaluate(pairs(), verbose=0)
    np.testing.assert_allclose(got, scores(model, X_Q, X_K), rtol=1e-4)


def test_the_other_mechanisms_are_measured_too():
    for model, batch in (
        (EndToEnd(encoder(), shuffle=False), (X_Q[:ROWS], X_K[:ROWS])),
        (
            MemoryBank(encoder(), num_images=ROWS, queue_size=QUEUE),
            {"x_q": X_Q[:ROWS], "index": np.arange(ROWS)},
        ),
    ):
        model.compile(SGD(0.0))
        data = tf.data.Dataset.from_tensors(batch)
        before = state(model)
        measured = model.evaluate(data, verbose=0)
        assert_equal_states(state(model), before)
        # Nothing in the encoder depends on training, so the training step has the same scores.
        trained = model.fit(data, verbose=0).history
        np.testing.assert_allclose(measured, [trained[n][0] for n in model.METRICS], rtol=1e-4)


def test_a_mechanism_without_scores_is_refused_before_the_first_epoch():
    class Unscored(EndToEnd):
        score = MoCo.__mro__[2].score

    model = Unscored(encoder())
    model.compile(SGD())
    with pytest.raises(NotImplementedError, match="Unscored must define `score`"):
        model.fit(pairs(), validation_data=pairs(), verbose=0)
    assert int(model.optimizer.iterations) == 0


# callbacks --------------------------------------------------------------------------------------


def test_every_callback_of_keras_works(tmp_path):
    """Right in 0.1.0, but for those that watch a validation loss."""
    made = keras.callbacks
    at_epoch = []
    callbacks = [
        made.ModelCheckpoint(tmp_path / "best.keras", monitor="val_loss", save_best_only=True),
        made.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
        made.EarlyStopping("val_loss", patience=1, min_delta=100, restore_best_weights=True),
        made.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100),
        made.LearningRateScheduler(lambda epoch, rate: rate),
        made.CSVLogger(tmp_path / "log.csv"),
        made.TensorBoard(tmp_path / "board", histogram_freq=1, write_graph=False),
        made.TerminateOnNaN(),
        made.LambdaCallback(on_epoch_end=lambda epoch, logs: at_epoch.append(state(model))),
        made.ProgbarLogger(),
    ]
    model = moco()
    history = model.fit(
        X_Q, X_K, batch_size=ROWS, validation_split=0.25, epochs=5, verbose=0, callbacks=callbacks
    ).history
    expected = {f"{part}{name}" for part in ("", "val_") for name in model.METRICS}
    assert set(history) == {*expected, "learning_rate"}
    assert len(history["val_loss"]) == 2  # ended early
    assert_equal_states(state(model), at_epoch[0])  # and the best weights are back
    best = keras.models.load_model(tmp_path / "best.keras")
    assert_equal_states(state(best), at_epoch[np.argmin(history["val_loss"])])
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    header = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert {"loss", "val_loss", "val_top1"} <= set(header)
    assert list((tmp_path / "board").rglob("events*"))


def monitor(**options):
    """A monitor of random images with the labels of their brightness."""
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    source = from_arrays(images, images.mean(axis=(1, 2, 3)) > 128)
    crop = {"image_size_px": 4, "resize_px": 4, "features": "projection", "neighbours": 3}
    return Monitor(bank=source, queries=source, recipe=recipes.v2, **crop, **options)


def test_a_monitor_of_every_second_epoch_fills_its_column(tmp_path):
    """In 0.1.0 CSVLogger had no column for it, and History a shorter list."""
    callbacks = [monitor(every_epochs=2), keras.callbacks.CSVLogger(tmp_path / "log.csv")]
    history = moco().fit(pairs(), epochs=3, verbose=0, callbacks=callbacks).history
    assert len(history["knn"]) == 3
    assert history["knn"][1] == history["knn"][2]  # measured after epoch 2
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    column = header.split(",").index("knn")
    assert [float(line.split(",")[column]) for line in lines] == pytest.approx(history["knn"])


def test_a_monitor_warns_of_an_encoder_that_sees_no_difference(caplog):
    def blind():
        images = keras.Input((4, 4, 3))
        # As a backbone that expects 0 to 255.
        x = layers.Dense(DIM, bias_initializer="ones")(layers.Rescaling(1 / 2**20)(images))
        return keras.Model(images, layers.GlobalAveragePooling2D()(x))

    moco(blind).fit(pairs(), verbose=0, callbacks=[monitor()])  # measures twice
    assert caplog.text.count("features of all images are equal") == 1
    features.warn_if_equal(1 + 0.01 * np.random.default_rng(0).normal(size=(20, 5)))
    assert caplog.text.count("features of all images are equal") == 1


def test_a_run_that_was_backed_up_goes_on(tmp_path):
    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        moco().fit(pairs(), epochs=3, verbose=0, callbacks=[backup, Killed()])
    model, reference = moco(), moco()
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    model.fit(pairs(), epochs=3, verbose=0, callbacks=[backup])
    reference.fit(pairs(), epochs=3, verbose=0)
    assert_equal_states(state(model), state(reference))


# copies and files -------------------------------------------------------------------------------

MECHANISMS = {
    "queue": lambda: moco(),
    "end_to_end": lambda: EndToEnd(encoder()),
    "memory_bank": lambda: MemoryBank(encoder(), num_images=ROWS * BATCHES, queue_size=QUEUE),
}


def batches_of(mechanism):
    batch = {"x_q": X_Q, "x_k": X_K}
    if mechanism == "memory_bank":
        batch["index"] = np.arange(ROWS * BATCHES)
    return tf.data.Dataset.from_tensor_slices(batch).batch(ROWS, drop_remainder=True)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("replicas", (1, pytest.param(2, marks=pytest.mark.slow)))
def test_a_loaded_model_trains_on_as_the_unbroken_run(mechanism, replicas, mirrored, tmp_path):
    """Right for MoCo in 0.1.0; the others were not located."""
    data = batches_of(mechanism)
    with mirrored(replicas).scope():
        model, unbroken = MECHANISMS[mechanism](), MECHANISMS[mechanism]()
        for each in (model, unbroken):
            each.compile(SGD(0.1))
    model.fit(data, verbose=0)
    model.save(tmp_path / "model.keras")
    with mirrored(replicas).scope():
        model = keras.models.load_model(tmp_path / "model.keras")
    model.fit(data, verbose=0)
    unbroken.fit(data, epochs=2, verbose=0)
    assert_equal_states(state(model), state(unbroken))
    model.save(tmp_path / "model.keras")
    one = keras.models.load_model(tmp_path / "model.keras")  # on one device again
    assert_equal_states(state(one), state(unbroken))


@pytest.mark.parametrize(
    "mechanism",
    [pytest.param(n, marks=() if n == "queue" else pytest.mark.slow) for n in MECHANISMS],
)
def test_a_model_is_pickled_and_cloned(mechanism):
    model = MECHANISMS[mechanism]()
    model.compile(SGD(0.1))
    model.fit(batches_of(mechanism), verbose=0)
    again = pickle.loads(pickle.dumps(model))
    assert_equal_states(state(again), state(model))
    assert again.optimizer.iterations == model.optimizer.iterations
    copy = keras.models.clone_model(model)
    assert [v.shape for v in copy.variables] == [v.shape for v in model.variables]
    assert copy.get_config() == model.get_config()
    assert any(np.any(a != b) for a, b in zip(state(copy), state(model)))


def test_the_summary_counts_keys_and_queue_as_not_trained():
    """In 0.1.0 the key encoder was in neither column."""
    model = moco()
    lines = []
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    weights = 4 * 4 * 3 * DIM + DIM
    assert f"Trainable params: {weights}" in text
    assert f"Non-trainable params: {weights + QUEUE * DIM + 1}" in text
    assert f"Total params: {2 * weights + QUEUE * DIM + 1}" in text
    assert model.count_params() == 2 * weights + QUEUE * DIM + 1
