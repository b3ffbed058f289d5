"""Boxes, anchors, matching, sampling and NMS, against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from numpy_boxes import (
    float32,
    numpy_area,
    numpy_iou,
    numpy_match,
    numpy_nms,
    numpy_overlap,
    random_boxes,
)

from moco_tf.detection.model import anchors, boxes, matching
from moco_tf.detection.model.nms import nms


def test_overlaps_and_clipping():
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 2, 5), random_boxes(rng, 2, 7)
    pairs = float32(a)[:, :, None], float32(b)[:, None]
    got, share = boxes.iou(*pairs), boxes.share_inside(*pairs)
    for n, i, j in np.ndindex(2, 5, 7):
        np.testing.assert_allclose(got[n, i, j], numpy_iou(a[n, i], b[n, j]), atol=1e-6)
        want = numpy_overlap(a[n, i], b[n, j]) / numpy_area(a[n, i])
        np.testing.assert_allclose(share[n, i, j], want, atol=1e-6)
    empty = np.zeros((1, 4), np.float32)
    assert boxes.iou(empty, empty).numpy() == 0 and boxes.area(float32([5, 5, 3, 2])) == 0
    clipped = boxes.clip(float32([[[-3, 2, 50, 60]], [[1, -1, 8, 9]]]), [[40, 30], [9, 9]])
    np.testing.assert_array_equal(clipped, [[[0, 2, 30, 40]], [[1, 0, 8, 9]]])


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)])
def test_deltas_move_anchors_onto_boxes(weights):
    rng = np.random.default_rng(1)
    a, b = random_boxes(rng, 9), random_boxes(rng, 9)
    size, new = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    shift = (b[:, :2] + b[:, 2:] - a[:, :2] - a[:, 2:]) / 2 / size
    want = np.concatenate([shift, np.log(new / size)], 1) * weights
    got = boxes.encode(float32(a), float32(b), weights)
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(boxes.decode(float32(a), got, weights), b, atol=1e-4)
    large = boxes.decode(float32([0, 0, 16, 16]), float32([0, 0, 999, 999]), weights)
    np.testing.assert_allclose(large, [-492, -492, 508, 508], rtol=1e-5)


def test_anchors():
    cells = anchors.cell_anchors((32, 64))
    sides = cells[:, 2:] - cells[:, :2]
    np.testing.assert_allclose(np.sqrt(sides.prod(1)), [32] * 3 + [64] * 3, rtol=1e-6)
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], [0.5, 1, 2] * 2, rtol=1e-6)
    np.testing.assert_allclose(cells[:, :2], -cells[:, 2:])
    grid = anchors.grid_anchors(cells, 16, 3, 5).numpy().reshape(3, 5, 6, 4)
    np.testing.assert_allclose(grid[2, 4], cells + np.array([64, 32, 64, 32]))


@pytest.mark.parametrize("low, high, low_quality", [(0.3, 0.7, True), (0.5, 0.5, False)])
def test_matching(low, high, low_quality):
    rng = np.random.default_rng(2)
    a, truth = random_boxes(rng, 3, 60), random_boxes(rng, 3, 6)
    truth[:, 3] *= 4  # a crowd may be large
    label = np.array([[0, 2, 1, -2, -1, 1], [0, 0, 0, -2, -2, -1], [-1] * 6])
    a[:, :6] = truth + rng.normal(0, 1, truth.shape)  # some overlap well
    truth[label == -1] = 0
    got = matching.match(
        float32(a), float32(truth), tf.constant(label, tf.int32), low, high, low_quality
    )
    compiled = tf.function(matching.match, jit_compile=True)(
        float32(a), float32(truth), tf.constant(label, tf.int32), low, high, low_quality
    )
    for n in range(3):
        index, *want = numpy_match(a[n], truth[n], label[n], low, high, low_quality)
        for have in (got, compiled):
            np.testing.assert_array_equal(have[1][n], want[0])
            np.testing.assert_array_equal(have[2][n], want[1])
            np.testing.assert_array_equal(have[0][n].numpy()[want[0]], index[want[0]])
    positive, negative = got[1].numpy(), got[2].numpy()
    assert positive[:2].any(axis=1).all() and not positive[2].any() and negative[2].all()
    assert (~positive & ~negative)[0].any()


def test_sampling():
    positive, negative = np.zeros((3, 100), bool), np.zeros((3, 100), bool)
    positive[0, :40], negative[0, 40:90] = True, True  # enough of both
    positive[1, 7], negative[1, 10:] = True, True  # one positive
    negative[2, :5] = True  # too few of all
    keys = tf.constant([[0, 1], [0, 2], [0, 3]], tf.int64)
    draw = tf.function(matching.sample, jit_compile=True)
    index, got, drawn = (x.numpy() for x in draw(positive, negative, keys, 20, 0.25))
    for n, number, most in ((0, 20, 5), (1, 20, 1), (2, 5, 0)):
        assert drawn[n].sum() == number and got[n].tolist() == [True] * most + [False] * (20 - most)
        chosen = index[n, drawn[n]]
        assert len(set(chosen)) == number
        assert positive[n, chosen[:most]].all() and negative[n, chosen[most:]].all()
    # Fewer boxes than draws are all drawn, as by detectron2's subsample_labels.
    few = (x[:, 38:48] for x in (positive, negative))
    index, got, drawn = (x.numpy() for x in draw(*few, keys, 20, 0.75))
    assert sorted(index[0, drawn[0]]) == list(range(10)) and index.shape == (3, 20)
    assert got.sum(1).tolist() == [2, 0, 0] and drawn.sum(1).tolist() == [10, 10, 0]
    # Each is as likely as any other, and a key draws the same again.
    keys = tf.stack([tf.zeros(400, tf.int64), tf.range(400, dtype=tf.int64)], axis=1)
    many = [np.repeat(x[:1], 400, axis=0) for x in (positive, negative)]
    index, _, _ = (x.numpy() for x in matching.sample(*many, keys, 20, 0.25))
    counts = np.bincount(index.ravel(), minlength=100)
    assert counts[:40].min() > 20 and counts[:40].max() < 90 and counts[90:].sum() == 0
    again, _, _ = matching.sample(*many, keys, 20, 0.25)
    np.testing.assert_array_equal(index, again)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_nms_of_each_group(jit_compile):
    rng = np.random.default_rng(3)
    a, score = random_boxes(rng, 2, 80), rng.permuted(np.arange(160.0)).reshape(2, 80)
    score[0, ::7] = score[1, 10:] = -np.inf
    group = rng.integers(0, 3, (2, 80)).astype(np.int32)
    run = tf.function(nms, jit_compile=jit_compile)
    for number in (10, 50):
        index, kept = run(float32(a), float32(score), group, 0.4, number)
        assert index.shape == kept.shape == (2, number)
        for n in range(2):
            want = numpy_nms(a[n], score[n], group[n], 0.4)[:number]
            assert index[n].numpy()[kept[n]].tolist() == want
    assert 0 < np.sum(kept[1]) < 10
