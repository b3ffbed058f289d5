"""kNN equals a brute force in NumPy; features are the same on any strategy."""

import numpy as np
import pytest
import tensorflow as tf

from moco_tf.backbones import heads, resnet
from moco_tf.backbones.encoder import Encoder
from moco_tf.data import sources
from moco_tf.data.recipes import moco
from moco_tf.data.sources import synthetic
from moco_tf.probes import features, knn


def unit_rows(n, seed):
    x = np.random.default_rng(seed).normal(size=(n, 16)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("n", "k"), [(500, 1), (500, 10), (500, 200), (500, 1000), (503, 10), (2000, 3)]
)
def test_knn_equals_brute_force(n, k):
    bank, queries = unit_rows(n, 0), unit_rows(70, 1)
    labels = np.random.default_rng(2).integers(7, size=n)
    want = []
    for query in queries:
        cosine = bank @ query
        votes = np.zeros(7)
        for i in np.argsort(-cosine, kind="stable")[:k]:
            votes[labels[i]] += np.exp(cosine[i] / 0.1)
        want.append(votes.argmax())
    got = knn.predict(bank, labels, queries, num_classes=7, neighbours=k)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("n, k, chunk", [(503, 9, 200), (2003, 9, 5000), (2003, 20, 1500)])
def test_nearest_are_sorted_in_any_blocks_and_lengths_do_not_matter(n, k, chunk):
    bank, queries = unit_rows(n, 0), unit_rows(5, 1)
    cosine = queries @ bank.T
    want = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
    similarity, index = knn.nearest(3 * bank, 0.5 * queries, k, block=4, chunk=chunk)
    np.testing.assert_array_equal(index, want)
    np.testing.assert_allclose(similarity, np.take_along_axis(cosine, want, axis=1), atol=1e-6)


@pytest.mark.parametrize("n, chunk", [(500, 500), (500, 150), (4000, 4000)])
def test_of_equally_near_ones_the_first_count(n, chunk):
    # Rows of four numbers +-1/2: cosines are -1, -1/2, 0, 1/2 or 1, exactly, and full of ties.
    rng = np.random.default_rng(0)
    bank, queries = (rng.choice([-0.5, 0.5], size=(m, 4)).astype(np.float32) for m in (n, 20))
    want = np.argsort(-queries @ bank.T, axis=1, kind="stable")[:, :37]
    np.testing.assert_array_equal(knn.nearest(bank, queries, 37, chunk=chunk)[1], want)
    labels = rng.integers(5, size=n)
    votes = np.zeros((20, 5))
    for i, row in enumerate(want):
        for j in row:
            votes[i, labels[j]] += np.exp(np.float64(queries[i] @ bank[j]) / 0.1)
    got = knn.predict(bank, labels, queries, num_classes=5, neighbours=37)
    np.testing.assert_array_equal(got, votes.argmax(axis=1))


def test_accuracy_is_the_share_of_right_answers():
    bank = np.eye(4, dtype=np.float32)
    accuracy = knn.accuracy(bank, [0, 1, 2, 3], bank, [0, 1, 2, 0], neighbours=1)
    assert accuracy == 0.75


def test_features_are_the_same_on_replicas_and_cover_an_uneven_set():
    source = sources.from_arrays(*synthetic.shapes(21, seed=0))
    encoder = Encoder(resnet.ResNet("basic", (1, 1, 1, 1), width=4, stem="cifar"), heads.linear(8))
    kwargs = dict(image_size_px=32, resize_px=32, batch=8)
    images = (source.read(tf.range(21)).numpy() / 255.0 - moco.v2.mean) / moco.v2.std
    strategy = tf.distribute.get_strategy()
    run = features.forward(encoder.features_and_embeddings(), moco.v2, strategy)
    got, labels, ok = features.extract(run, source, **kwargs)
    assert ok.shape == (21,) and ok.all()
    np.testing.assert_array_equal(labels, source.labels)
    for x, model in zip(got, (encoder.backbone, encoder)):
        want = model(images.astype(np.float32), training=False).numpy()
        np.testing.assert_allclose(x, want, atol=1e-5)

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        copy = Encoder(resnet.ResNet("basic", (1, 1, 1, 1), width=4, stem="cifar"), heads.linear(8))
        copy.set_weights(encoder.get_weights())
        network = copy.features_and_embeddings()
    run = features.forward(network, moco.v2, strategy)
    mirrored, labels, ok = features.extract(run, source, **kwargs)
    np.testing.assert_array_equal(labels, source.labels)
    assert ok.all()
    for a, b in zip(mirrored, got):
        np.testing.assert_allclose(a, b, atol=1e-5)
