"""Linear classifiers on features: as scikit-learn's, one by one as many together."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from moco_tf.evaluation import linear_cached
from moco_tf.probes import linear

OPTIONS = dict(momentum=0.9, batch_size=64, epochs=60, seed=0, title=None)


@pytest.fixture(scope="module")
def data():
    """Features of three classes that overlap: training and test."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=4000)
    x = rng.normal(size=(3, 10))[labels] * 0.8 + rng.normal(size=(4000, 10))
    x = x.astype(np.float32)
    return x[:2000], labels[:2000], x[2000:], labels[2000:]


@pytest.mark.parametrize("decay", [1e-3, 1e-2])
def test_it_equals_logistic_regression(data, decay):
    x, y, queries, labels = data
    # scikit-learn minimises C * sum of losses + |w|^2 / 2.
    # The bias is the weight of a feature that is 1, since torch's L2 is on the bias, too.
    x_1, queries_1 = (np.hstack([a, np.ones((len(a), 1))]) for a in (x, queries))
    oracle = LogisticRegression(
        C=1 / (decay * len(x)), fit_intercept=False, tol=1e-8, max_iter=1000
    ).fit(x_1, y)
    fitted = linear.fit(x, y, 3, [0.1], [decay], **OPTIONS)
    predicted = fitted.logits(0, queries).argmax(axis=1)
    assert abs(np.mean(predicted == labels) - oracle.score(queries_1, labels)) <= 0.005
    got = np.vstack([fitted.weights[0], fitted.biases[0]])
    np.testing.assert_allclose(got, oracle.coef_.T, atol=0.02 * np.abs(oracle.coef_).max())


def test_many_together_are_the_same_as_one_by_one_and_as_torchs_steps(data):
    x, y, *_ = data
    options = OPTIONS | {"epochs": 2}
    rates, decays = [0.1, 3.0, 0.5], [0.0, 1e-3, 0.1]
    together = linear.fit(x, y, 3, rates, decays, **options)
    for i, (rate, decay) in enumerate(zip(rates, decays)):
        alone = linear.fit(x, y, 3, [rate], [decay], **options)
        np.testing.assert_allclose(together.weights[i], alone.weights[0], atol=1e-5)
        np.testing.assert_allclose(together.biases[i], alone.biases[0], atol=1e-5)
        np.testing.assert_allclose(together.losses[i], alone.losses[0], rtol=1e-5)
        weights, biases = by_hand(x, y, rate, decay, options)
        np.testing.assert_allclose(alone.weights[0], weights, atol=1e-4)
        np.testing.assert_allclose(alone.biases[0], biases, atol=1e-4)


def by_hand(x, y, rate, decay, options):
    """The same in NumPy, float64."""
    rng = np.random.default_rng(options["seed"])
    w, b = rng.normal(0, 0.01, (x.shape[1], 1, 3))[:, 0], np.zeros(3)
    v_w, v_b = np.zeros_like(w), np.zeros_like(b)
    batch, steps = options["batch_size"], len(x) // options["batch_size"]
    for epoch in range(options["epochs"]):
        order = rng.permutation(len(x))
        for i in range(steps):
            rows = order[i * batch : (i + 1) * batch]
            logits = x[rows] @ w + b
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            error = (p / p.sum(axis=1, keepdims=True) - np.eye(3)[y[rows]]) / batch
            v_w = options["momentum"] * v_w + x[rows].T @ error + decay * w
            v_b = options["momentum"] * v_b + error.sum(axis=0) + decay * b
            progress = (epoch * steps + i) / (options["epochs"] * steps)
            scale = 0.5 * (1 + np.cos(np.pi * progress))
            w, b = w - rate * scale * v_w, b - rate * scale * v_b
    return w, b


def test_a_rate_that_diverges_is_seen_in_its_loss_alone(data):
    x, y, *_ = data
    fitted = linear.fit(1e3 * x, y, 3, [1e36, 1e-7], [0.0, 0.0], **OPTIONS | {"epochs": 3})
    assert not np.isfinite(fitted.losses[0]) and np.isfinite(fitted.losses[1])


def test_a_probe_tells_what_can_be_told(data):
    x, y, queries, labels = data
    separate = np.eye(3, dtype=np.float32)
    assert linear.probe(separate[y], y, separate[labels], labels) == 1.0
    noise = np.random.default_rng(1).permutation(y)
    assert linear.probe(x, noise, queries, labels) < 0.5


def test_of_rates_that_are_as_good_the_smallest_is_taken():
    def entry(rate, decay, accuracy, finite=True):
        return dict(learning_rate=rate, weight_decay=decay, accuracy=accuracy, finite=finite)

    flat = [entry(3.0, 0.0, 0.52), entry(0.1, 0.0, 0.505), entry(0.1, 0.1, 0.51)]
    others = [entry(0.01, 0.0, 0.4), entry(0.03, 0.0, 0.0, finite=False)]
    assert linear_cached.best_of(flat + others, 1000) == flat[2]  # standard error .016
    assert linear_cached.best_of(flat + others, 100_000) == flat[0]
    assert linear_cached.best_of(flat + others, 10) == others[0]
