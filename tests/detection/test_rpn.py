"""The region proposal network: its head, its losses and its proposals, against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from numpy_boxes import float32, numpy_match, numpy_nms, random_boxes

from moco_tf.detection.model import anchors, boxes, rpn


def case(rng):
    """Anchors of two levels, and what a head says to them for two images."""
    grids = [
        anchors.grid_anchors(anchors.cell_anchors((size,)), stride, 96 // stride, 128 // stride)
        for size, stride in ((24, 8), (48, 16))
    ]
    logits = [float32(rng.normal(size=(2, len(g)))) for g in grids]
    deltas = [float32(rng.normal(0, 0.3, (2, len(g), 4))) for g in grids]
    return grids, logits, deltas


def test_the_head_speaks_in_the_order_of_the_anchors():
    head = rpn.rpn_head(8, 3)
    maps = np.random.default_rng(0).normal(size=(2, 4, 5, 8)).astype(np.float32)
    logits, deltas = head(maps)
    assert logits.shape == (2, 60) and deltas.shape == (2, 60, 4)
    hidden = head.get_layer("conv")(maps)
    place = np.ravel_multi_index((2, 3), (4, 5)) * 3
    want = head.get_layer("box")(hidden)[:, 2, 3]
    np.testing.assert_allclose(deltas[:, place : place + 3], tf.reshape(want, [2, 3, 4]), atol=1e-6)
    assert 0.005 < np.std(head.get_layer("conv").kernel) < 0.015


def test_losses_are_those_of_the_drawn_anchors(monkeypatch):
    monkeypatch.setattr(rpn, "SAMPLED", 720)  # all anchors are drawn
    monkeypatch.setattr(rpn, "POSITIVE_SHARE", 0.9)
    rng = np.random.default_rng(1)
    grids, logits, deltas = case(rng)
    a, logits, deltas = np.concatenate(grids), np.hstack(logits), np.hstack(deltas)
    truth = random_boxes(rng, 2, 3, side=90)
    label = np.array([[1, 0, -1], [2, -2, 1]])
    class_loss = box_loss = 0
    for n in range(2):
        index, positive, negative = numpy_match(a, truth[n], label[n], 0.3, 0.7, True)
        assert positive.sum() > 0
        p = 1 / (1 + np.exp(-logits[n].astype(float)))
        class_loss -= np.log(p[positive]).sum() + np.log(1 - p[negative]).sum()
        want = boxes.encode(a[positive], float32(truth[n, index[positive]]), rpn.WEIGHTS)
        box_loss += np.abs(deltas[n, positive] - want).sum()
    keys = tf.constant([[0, 1], [0, 2]], tf.int64)
    run = tf.function(rpn.losses, jit_compile=True)
    got = run(a, logits, deltas, float32(truth), tf.constant(label, tf.int32), keys)
    np.testing.assert_allclose(got, [class_loss / 1440, box_loss / 1440], rtol=1e-4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_all_anchors_of_a_small_image_count(jit_compile):
    """C4 has 240 anchors for 64 px. facebookresearch/detectron2, detectron2/modeling/sampling.py:
    num_samples "or fewer"; defaults.py, MODEL.RPN.BATCH_SIZE_PER_IMAGE: 256, which divides.
    """
    rng = np.random.default_rng(4)
    a = anchors.grid_anchors(anchors.cell_anchors(anchors.SIZES_PX), 16, 4, 4).numpy()
    truth = np.array([[[10, 10, 40, 50]]])
    label, logits = np.array([[0]]), float32(rng.normal(size=(1, 240)))
    _, positive, negative = numpy_match(a, truth[0], label[0], 0.3, 0.7, True)
    p = 1 / (1 + np.exp(-logits[0].astype(float)))
    want = -np.log(p[positive]).sum() - np.log(1 - p[negative]).sum()
    run = tf.function(rpn.losses, jit_compile=jit_compile)
    keys, label = tf.constant([[0, 1]], tf.int64), tf.constant(label, tf.int32)
    got, _ = run(a, logits, np.zeros((1, 240, 4), np.float32), float32(truth), label, keys)
    np.testing.assert_allclose(got, want / 256, rtol=1e-4)


def test_replicas_have_the_losses_of_one_device(mirrored):
    """Each image draws its anchors by its own key, on whichever replica it is."""
    rng = np.random.default_rng(5)
    grids, logits, deltas = case(rng)
    a, truth = np.concatenate(grids), float32(random_boxes(rng, 2, 3, side=90))
    of_images = [tf.concat(logits, 1), tf.concat(deltas, 1), truth]
    of_images += [tf.constant([[1, 0, -1], [2, -2, 1]]), tf.constant([[0, 1], [0, 2]], tf.int64)]
    strategy = mirrored(2)

    def own(context):
        row = context.replica_id_in_sync_group
        return [tf.constant(x[row : row + 1]) for x in of_images]

    values = strategy.experimental_distribute_values_from_function(own)
    run = tf.function(lambda v: strategy.run(lambda x: rpn.losses(a, *x), (v,)), autograph=False)
    got = [np.mean(strategy.experimental_local_results(loss)) for loss in run(values)]
    np.testing.assert_allclose(got, rpn.losses(a, *of_images), rtol=1e-5)


def test_no_instance_no_gradient_of_boxes():
    grids, logits, deltas = case(np.random.default_rng(2))
    a, logits, deltas = np.concatenate(grids), tf.concat(logits, 1), tf.concat(deltas, 1)
    truth, label = tf.zeros((2, 3, 4)), tf.fill((2, 3), -1)
    with tf.GradientTape() as tape:
        tape.watch([logits, deltas])
        losses = rpn.losses(a, logits, deltas, truth, label, tf.zeros((2, 2), tf.int64))
        total = tf.add_n(losses)
    of_logits, of_deltas = tape.gradient(total, [logits, deltas])
    assert losses[1] == 0 and np.all(tf.convert_to_tensor(of_deltas) == 0)
    assert np.count_nonzero(of_logits) == 512 and np.isfinite(of_logits).all()


def test_proposals_are_the_best_boxes_of_all_levels():
    rng = np.random.default_rng(3)
    grids, logits, deltas = case(rng)
    size = np.array([[96, 128], [60, 70]], np.int32)
    got, is_valid = rpn.proposals(grids, logits, deltas, size, 100, 80)
    assert got.shape == (2, 80, 4) and is_valid.numpy().all()
    for n in range(2):
        kept = []
        for level, (a, score, delta) in enumerate(zip(grids, logits, deltas)):
            best = np.argsort(-score[n])[:100]
            decoded = boxes.decode(a.numpy()[best], delta[n, best], rpn.WEIGHTS).numpy()
            height, width = size[n]
            decoded = np.clip(decoded, 0, [width, height, width, height])
            kept += [
                (box, s, level) for box, s in zip(decoded, score[n, best]) if boxes.area(box) > 0
            ]
        box, score, level = (np.array(x) for x in zip(*kept))
        order = numpy_nms(box.astype(float), score, level, 0.7)[:80]
        np.testing.assert_allclose(got[n], box[order], atol=1e-4)
    # Fewer than asked for are filled up with empty boxes.
    got, is_valid = rpn.proposals(grids, logits, deltas, size, 3, 80)
    assert is_valid.numpy().sum(1).max() <= 6 and not got.numpy()[~is_valid.numpy()].any()
