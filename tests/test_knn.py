"""kNN equals a brute force in NumPy; features are the same on any strategy."""

import numpy as np
import pytest
import tensorflow as tf

from moco_tf import datasets
from moco_tf.backbones import heads, resnet
from moco_tf.datasets import synthetic
from moco_tf.evaluation import features, knn
from moco_tf.recipes import moco


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
    got = knn.predict(bank, labels, queries, num_classes=7, neighbours=k, block=32)
    np.testing.assert_array_equal(got, want)


def test_nearest_are_sorted():
    bank, queries = unit_rows(503, 0), unit_rows(5, 1)
    want = np.argsort(-queries @ bank.T, axis=1, kind="stable")[:, :9]
    np.testing.assert_array_equal(knn.nearest(bank, queries, 9), want)


def test_accuracy_is_the_share_of_right_answers():
    bank = np.eye(4, dtype=np.float32)
    accuracy = knn.accuracy(bank, [0, 1, 2, 3], bank, [0, 1, 2, 0], neighbours=1)
    assert accuracy == 0.75


def test_features_are_the_same_on_replicas_and_cover_an_uneven_set():
    source = datasets.from_arrays(*synthetic.shapes(21, seed=0))
    encoder = heads.encoder(
        resnet.resnet(resnet.basic_block, (1, 1, 1, 1), width=4, stem="cifar"), heads.linear, 8
    )
    kwargs = dict(image_size_px=32, resize_px=32, batch=8)
    images = (source.read(tf.range(21)).numpy() / 255.0 - moco.v2.mean) / moco.v2.std
    for kind in ("backbone", "projection"):
        model = encoder if kind == "projection" else features.backbone_of(encoder)
        want = model(images.astype(np.float32), training=False).numpy()
        want /= np.linalg.norm(want, axis=1, keepdims=True)
        strategy = tf.distribute.get_strategy()
        run = features.extractor(encoder, kind, strategy)
        got, ok = features.extract(run, source, moco.v2, strategy, **kwargs)
        assert ok.shape == (21,) and ok.all()
        np.testing.assert_allclose(got, want, atol=1e-5)

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        copy = heads.encoder(
            resnet.resnet(resnet.basic_block, (1, 1, 1, 1), width=4, stem="cifar"), heads.linear, 8
        )
        copy.set_weights(encoder.get_weights())
    run = features.extractor(copy, "projection", strategy)
    mirrored, _ = features.extract(run, source, moco.v2, strategy, **kwargs)
    np.testing.assert_allclose(mirrored, got, atol=1e-5)
