"""What `fit` and `train_on_batch` take: data in every form that Keras has; what they refuse."""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_case import (
    BATCHES,
    LABELS,
    QUEUE,
    ROWS,
    X_K,
    X_Q,
    assert_equal_states,
    encoder,
    moco,
    pairs,
    state,
)

from moco_tf import SGD, MoCo

# refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    ({"loss": "mse"}, {"metrics": ["accuracy"]}, {"weighted_metrics": []}, {"loss_weights": [1]}),
)
def test_losses_and_metrics_are_refused(options):
    model = MoCo(encoder(), queue_size=QUEUE)
    with pytest.raises(ValueError, match=r"its own loss and reports loss, top1, top5.*Received: "):
        model.compile(SGD(), **options)


def labelled(form):
    views = tf.data.Dataset.from_tensor_slices((X_Q, X_K, LABELS))
    return views.map(form).batch(ROWS, drop_remainder=True)


@pytest.mark.parametrize(
    "form, advice",
    (
        (lambda q, k, label: ((q, k), label), r"second .*\.map\(lambda views, label: views\)"),
        (lambda q, k, label: (q, label), r"second element looks like labels.*moco_tf.two_views"),
        (lambda q, k, label: (q, tf.one_hot(label, 3)), "second element looks like labels"),
        (lambda q, k, label: (q, k, label), r"third .*\.map\(lambda x_q, x_k, label: \(x_q, x_k\)"),
        (lambda q, k, label: {"image": q, "label": label}, r"image: float32 \(8, 4, 4, 3\)"),
        (lambda q, k, label: q, "moco_tf.two_views"),
    ),
)
def test_labelled_data_are_named(form, advice):
    model = moco()
    rule = r"(?s)must yield `\(x_q, x_k\)`.*Received: .*"
    with pytest.raises(ValueError, match=rule + advice):
        model.fit(labelled(form), verbose=0)
    with pytest.raises(ValueError, match=r"must yield `\(x_q, x_k\)`"):
        model.evaluate(labelled(form), verbose=0)


# forms of data ----------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    """Pairs in batches of `size`, the last of which may be smaller."""

    def __init__(self, size, rows=ROWS * BATCHES, **options):
        super().__init__(**options)
        self.size, self.rows = size, rows

    def __len__(self):
        return -(-self.rows // self.size)

    def __getitem__(self, i):
        part = slice(i * self.size, min((i + 1) * self.size, self.rows))
        return X_Q[part], X_K[part]


def generator(size):
    batches = Batches(size)
    yield from (batches[i] for i in range(len(batches)))


FORMS = {
    "PyDataset": (lambda size: (Batches(size),), {"shuffle": False}),
    "PyDataset with workers": (lambda size: (Batches(size, workers=2),), {"shuffle": False}),
    "generator": (lambda size: (generator(size),), {}),
    "arrays": (lambda size: (X_Q, X_K), {"shuffle": False}),
    "tuple of arrays": (lambda size: ((X_Q, X_K),), {"shuffle": False}),
    "dict of arrays": (lambda size: ({"x_q": X_Q, "x_k": X_K},), {"shuffle": False}),
    "tensors": (lambda size: (tf.constant(X_Q), tf.constant(X_K)), {"shuffle": False}),
}


@functools.cache
def trained_on_pairs(size):
    """Steps and state of a model after an epoch of `tf.data`."""
    model = moco()
    model.fit(pairs(size), verbose=0)
    return int(model.optimizer.iterations), state(model)


@pytest.mark.parametrize(
    "size", (12, pytest.param(8, marks=pytest.mark.slow)), ids=("last one smaller", "full")
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # a generator's end
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_data_train_alike(form, size):
    """In 0.1.0 all but `tf.data` were refused, with advice for `tf.data`."""
    model, (iterations, want) = moco(), trained_on_pairs(size)
    make, options = FORMS[form]
    batch_size = size if "array" in form or form == "tensors" else None
    model.fit(*make(size), batch_size=batch_size, verbose=0, **options)
    assert int(model.optimizer.iterations) == iterations
    assert_equal_states(state(model), want, atol=1e-6)


def test_batch_by_batch_trains_as_fit():
    model, reference = moco(), moco()
    history = reference.fit(pairs(), verbose=0).history
    losses = [model.train_on_batch(*batch, return_dict=True)["loss"] for batch in generator(ROWS)]
    np.testing.assert_allclose(np.mean(losses), history["loss"][0], rtol=1e-5)
    assert_equal_states(state(model), state(reference), atol=1e-6)
    model.train_on_batch(X_Q[:4], X_K[:4])  # of another size
    assert int(model.queue_ptr) == (ROWS * BATCHES + 4) % QUEUE


def test_fit_may_be_called_again_with_another_batch():
    model = moco()
    for rows in (ROWS, 4, 16):
        model.fit(pairs(rows), verbose=0)
    assert int(model.optimizer.iterations) == BATCHES + 2 * BATCHES + BATCHES // 2


def test_replicas_train_on_a_py_dataset(mirrored):
    with mirrored(2).scope():
        model = moco(shuffle=False)
    reference = moco(shuffle=False)
    model.fit(Batches(ROWS), shuffle=False, verbose=0)
    reference.fit(pairs(), verbose=0)
    assert_equal_states(state(model), state(reference), atol=1e-5)


def test_too_few_rows_weights_and_unequal_arrays_are_refused():
    model = moco()
    for arguments, message in (
        ((X_Q[:10], X_K[:10]), r"at least one batch of 32 rows. Received: 10"),
        ((X_Q, X_K[:10]), r"views of the same images. Received: rows \{'x_q': 32, 'x_k': 10\}"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(*arguments, verbose=0)
    with pytest.raises(ValueError, match="weigh the same"):
        model.fit(pairs(), class_weight={0: 1}, verbose=0)
    with pytest.raises(ValueError, match="`validation_split` needs arrays"):
        model.fit(pairs(), validation_split=0.5, verbose=0)


@pytest.mark.filterwarnings("error")
def test_keras_warns_of_nothing_that_the_user_did_not_write():
    """In 0.1.0: "`shuffle=True` was passed, but will be ignored"."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moco().fit(pairs(), verbose=0)
        moco().fit(X_Q, X_K, batch_size=ROWS, validation_split=0.25, verbose=0)
