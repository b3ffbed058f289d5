"""The heads of regions, their targets and losses, and what is predicted from them."""

import math

import numpy as np
import pytest
import shapes
import tensorflow as tf
from numpy_boxes import float32, numpy_iou, random_boxes

from moco_tf.detection.model import box_head, boxes, keypoint_head, mask_head
from moco_tf.detection.model.roi_align import roi_align

KEYS = tf.constant([[0, 1], [0, 2]], tf.int64)


def test_sizes_and_initialisation():
    box = box_head.box_head((7, 7, 16), 5)
    logits, deltas = box(np.ones((3, 7, 7, 16), np.float32))
    assert logits.shape == (3, 6) and deltas.shape == (3, 5, 4)
    assert [box.get_layer(f"fc{i}").units for i in (1, 2)] == [1024, 1024]
    assert 0.008 < np.std(box.get_layer("classes").kernel) < 0.012
    assert 0.0008 < np.std(box.get_layer("boxes").kernel) < 0.0012
    mean = box_head.box_head((7, 7, 16), 5, average_pool=True)
    x = np.random.default_rng(0).normal(size=(2, 7, 7, 16)).astype(np.float32)
    want = x.mean((1, 2)) @ mean.get_layer("classes").kernel.numpy()
    np.testing.assert_allclose(mean(x)[0], want, atol=1e-5)
    masks = mask_head.mask_head((14, 14, 16), 5)
    assert masks.output_shape == (None, 28, 28, 5)
    assert mask_head.mask_head((7, 7, 16), 5, convs=0).output_shape == (None, 14, 14, 5)
    points = keypoint_head.keypoint_head((14, 14, 16), 17, width_divisor=8)
    assert points.output_shape == (None, 56, 56, 17)
    assert sum("conv" in layer.name for layer in points.layers) == 8


def test_regions_to_train_on():
    rng = np.random.default_rng(1)
    truth = random_boxes(rng, 2, 3)
    proposals = random_boxes(rng, 2, 60)
    proposals[:, :5] = truth[:, :1] + rng.normal(0, 1, (2, 5, 4))
    label = tf.constant([[1, 0, -1], [2, -2, -1]])
    is_valid = np.arange(60) < 50
    got = box_head.sample(
        float32(proposals), tf.constant([is_valid, is_valid]), float32(truth), label, KEYS, 32
    )
    for n in range(2):
        positive, counted = got.positive[n].numpy(), got.is_drawn[n].numpy()
        assert positive[: positive.sum()].all() and positive.sum() <= 8 and counted.all()
        for box, index, is_positive in zip(got.boxes[n], got.index[n], positive, strict=True):
            known = [*proposals[n, :50], *truth[n]]
            assert min(np.abs(box - k).max() for k in known) < 1e-4
            overlap = [
                numpy_iou(box, t) if c >= 0 else 0 for t, c in zip(truth[n], label[n].numpy())
            ]
            assert is_positive == (max(overlap) >= 0.5)
            if is_positive:
                assert index == np.argmax(overlap)
    # An instance finds itself, though nothing else does.
    none = tf.zeros((2, 60), bool)
    got = box_head.sample(float32(proposals), none, float32(truth), label, KEYS, 32)
    assert got.positive.numpy().sum(1).tolist() == [2, 1]
    assert got.is_drawn.numpy().sum(1).tolist() == [2, 1]


def test_the_losses_of_boxes():
    rng = np.random.default_rng(2)
    regions = box_head.SampledRegions(
        boxes=float32(random_boxes(rng, 2, 4)),
        positive=np.array([[True, True, False, False], [True, False, False, False]]),
        is_drawn=np.array([[True] * 4, [True, True, True, False]]),
        index=np.array([[1, 0, 1, 0]] * 2),
    )
    truth, label = float32(random_boxes(rng, 2, 2)), np.array([[2, 0], [1, 1]], np.int32)
    logits, deltas = rng.normal(size=(2, 4, 4)), rng.normal(size=(2, 4, 3, 4))
    class_loss = box_loss = smooth = 0
    for n, r in np.argwhere(regions.is_drawn):
        positive, instance = regions.positive[n, r], regions.index[n, r]
        target = label[n, instance] if positive else 3
        class_loss += np.log(np.exp(logits[n, r]).sum()) - logits[n, r, target]
        if positive:
            want = boxes.encode(regions.boxes[n, r], truth[n, instance], (10.0, 10.0, 5.0, 5.0))
            distances = np.abs(deltas[n, r, target] - want)
            box_loss += distances.sum()
            smooth += sum(d * d if d < 0.5 else d - 0.25 for d in distances)
    regions.index = tf.constant(regions.index, tf.int32)
    got = box_head.losses(float32(logits), float32(deltas), regions, truth, label)
    np.testing.assert_allclose(got, [class_loss / 8, box_loss / 8], rtol=1e-5)
    got = box_head.losses(float32(logits), float32(deltas), regions, truth, label, beta=0.5)
    np.testing.assert_allclose(got, [class_loss / 8, smooth / 8], rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_detections(jit_compile):
    """Three proposals, two of them of the same thing; the third is none of the image's."""
    proposals = float32([[[10, 10, 30, 30], [11, 10, 31, 30], [50, 5, 90, 45], [0, 0, 9, 9]]])
    is_valid = tf.constant([[True, True, True, False]])
    logits = np.log(
        float32([[[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.02, 0.9, 0.08], [0.9, 0.05, 0.05]]])
    )
    deltas = np.zeros((1, 4, 2, 4), np.float32)
    deltas[0, 2, 1] = [1, 0, 0, 5 * math.log(2)]  # by a tenth of its width, and twice as high
    size = tf.constant([[60, 80]])
    run = tf.function(box_head.detections, jit_compile=jit_compile)
    got = {k: v.numpy()[0] for k, v in run(logits, deltas, proposals, is_valid, size, 5).items()}
    assert got["label"].tolist() == [1, 0, 1, -1, -1]
    np.testing.assert_allclose(got["score"], [0.9, 0.7, 0.3, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(
        got["boxes"][:3], [[54, 0, 80, 60], [10, 10, 30, 30], [11, 10, 31, 30]], rtol=1e-5
    )


def test_targets_of_masks():
    example = shapes.batch(7, 2)
    truth = float32(example["boxes"])
    index = tf.zeros((2, 3), tf.int32)
    shift = np.array([[0, 0, 0, 0], [-5, -3, 4, 9], [8, 6, -4, 2]])
    given = float32(truth[:, :1] + shift)
    got = mask_head.targets(example["mask"], truth, given, index, 28)
    compiled = mask_head.targets(example["mask"], truth, given, index, 28, static_shapes=True)
    np.testing.assert_array_equal(got, compiled)
    for n, b in np.ndindex(2, 3):
        x1, y1, x2, y2 = truth[n, 0]
        u1, v1, u2, v2 = given[n, b]
        u = (u1 + (np.arange(28) + 0.5) / 28 * (u2 - u1) - x1) / (x2 - x1)
        v = (v1 + (np.arange(28) + 0.5) / 28 * (v2 - v1) - y1) / (y2 - y1)
        want = shapes.inside(example["label"][n, 0], v[:, None], u)
        assert np.mean(got[n, b] == want) > 0.97


def test_the_loss_of_masks_is_that_of_the_positives_classes():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 3, 4, 4, 5))
    target = rng.integers(0, 2, (2, 3, 4, 4))
    label = np.array([[4, 2, 0], [1, -1, 3]])
    positive = np.array([[True, True, False], [True, False, False]])
    want = []
    for n, b in np.argwhere(positive):
        p = 1 / (1 + np.exp(-logits[n, b, ..., label[n, b]]))
        want.append(-np.log(np.where(target[n, b], p, 1 - p)).mean())
    got = mask_head.loss(
        float32(logits), float32(target), tf.constant(label, tf.int32), tf.constant(positive)
    )
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)
    none = tf.zeros((2, 3), bool)
    assert mask_head.loss(float32(logits), float32(target), label.astype("i4"), none) == 0


def test_targets_of_keypoints():
    box = float32([[[10, 20, 66, 132]]])  # a cell is 1 x 2 px
    points = float32([[10, 20, 2], [66, 132, 1], [10.99, 22.0, 2], [9.9, 30, 2], [40, 40, 0]])
    cell, counted = keypoint_head.targets(points[None, None], box, 56)
    assert counted.numpy().tolist() == [[[True, True, True, False, False]]]
    assert cell.numpy()[0, 0, :3].tolist() == [0, 56 * 56 - 1, 56]


def test_the_loss_of_keypoints_is_a_mean_over_points():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(1, 2, 4, 4, 3))
    cell = np.array([[[3, 7, 0], [15, 0, 1]]], np.int32)
    counted = np.array([[[True, True, False], [True, False, False]]])
    flat = logits.reshape(1, 2, 16, 3)
    want = [
        np.log(np.exp(flat[n, b, :, k]).sum()) - flat[n, b, cell[n, b, k], k]
        for n, b, k in np.argwhere(counted)
    ]
    got = keypoint_head.loss(float32(logits), cell, tf.constant(counted))
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-5)


def test_keypoints_are_decoded_to_a_quarter_of_a_cell():
    logits = np.zeros((1, 1, 56, 56, 3), np.float32)
    logits[0, 0, 20, 30, 0] = logits[0, 0, 0, 55, 1] = logits[0, 0, 9, 9, 2] = 5
    logits[0, 0, 20, 31, 0] = logits[0, 0, 19, 30, 0] = 1  # right and above
    logits[0, 0, 0, 54, 1] = 1  # the border has one neighbour only
    box = float32([[[10, 20, 66, 132]]])
    points = keypoint_head.decode(logits, box).numpy()[0, 0]
    want = [[10 + 30.75, 20 + 2 * 20.25], [10 + 55.5, 20 + 2 * 0.5], [19.5, 39]]
    np.testing.assert_allclose(points[:, :2], want, rtol=1e-5)
    others = 56 * 56 - 3 + 2 * math.exp(1)
    np.testing.assert_allclose(points[0, 2], math.exp(5) / (math.exp(5) + others), rtol=1e-4)
    cell, counted = keypoint_head.targets(np.insert(points[None, None], 2, 2, -1), box, 56)
    assert cell.numpy().ravel().tolist() == [20 * 56 + 30, 55, 9 * 56 + 9] and np.all(counted)


def test_a_mask_pooled_over_its_own_box_is_itself():
    mask = float32(shapes.draw(7)["mask"][None, 0, ..., None])
    whole = tf.constant([[[0.0, 0.0, 112.0, 112.0]]])
    np.testing.assert_allclose(
        roi_align(mask, whole, 56, 2)[0, 0], tf.nn.avg_pool2d(mask, 2, 2, "VALID")[0], atol=1e-5
    )
