"""RoIAlign against torchvision's definition, written out in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from moco_tf.detection.model import roi_align

WAYS = [(ratio, static_shapes) for ratio in (2, 0) for static_shapes in (False, True)]
BOTH = pytest.mark.parametrize("ratio, static_shapes", WAYS)


def sample(image, y, x):
    """Bilinear between centres; 0 more than one cell outside, the border nearer than that."""
    height, width = image.shape[:2]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(image.shape[2])
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    v, u = y - top, x - left
    above = image[top, left] * (1 - u) + image[top, right] * u
    below = image[bottom, left] * (1 - u) + image[bottom, right] * u
    return above * (1 - v) + below * v


def numpy_roi_align(image, box, size, ratio, aligned=True):
    """torchvision's roi_align of one box.

    facebookresearch/detectron2, detectron2/modeling/poolers.py: pooler_type "ROIAlignV2" is
    aligned=True, "ROIAlign" aligned=False.
    """
    x1, y1, x2, y2 = box - 0.5 if aligned else box
    if not aligned:
        x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    high, wide = (y2 - y1) / size, (x2 - x1) / size
    rows, columns = ratio or int(np.ceil(high)), ratio or int(np.ceil(wide))
    result = np.zeros((size, size, image.shape[2]))
    for i, j in np.ndindex(size, size):
        for r, c in np.ndindex(rows, columns):
            y = y1 + high * (i + (r + 0.5) / rows)
            x = x1 + wide * (j + (c + 0.5) / columns)
            result[i, j] += sample(image, y, x) / (rows * columns)
    return result


def case(rng, number=32):
    """Two maps, and boxes within them, partly outside, tiny, and empty."""
    maps = rng.normal(size=(2, 17, 23, 3))
    corner = rng.uniform([-6, -6], [22, 16], (2, number, 2))
    side = rng.uniform(0.5, 14, (2, number, 2))
    side[:, ::8] = rng.uniform(0.001, 0.1, side[:, ::8].shape)
    boxes = np.concatenate([corner, corner + side], axis=-1)
    boxes[1, 0] = 0
    return maps.astype(np.float32), boxes.astype(np.float32)


@BOTH
@pytest.mark.parametrize("size, aligned", [(7, True), (2, True), (2, False)])
def test_is_torchvisions(size, aligned, ratio, static_shapes):
    maps, boxes = case(np.random.default_rng(0))
    run = tf.function(roi_align.roi_align, jit_compile=static_shapes, autograph=False)
    got = run(tf.constant(maps), tf.constant(boxes), size, ratio, static_shapes, aligned)
    assert got.shape == (2, 32, size, size, 3)
    for n, r in np.ndindex(2, 32):
        box = boxes[n, r].astype(float)
        want = numpy_roi_align(maps[n].astype(float), box, size, ratio, aligned)
        np.testing.assert_allclose(got[n, r], want, atol=1e-5, err_msg=str(boxes[n, r]))


@BOTH
def test_gradients_are_those_of_a_linear_function(ratio, static_shapes):
    rng = np.random.default_rng(1)
    maps, boxes = case(rng, 8)
    weights = rng.normal(size=(2, 8, 3, 3, 3)).astype(np.float32)
    maps, boxes = tf.constant(maps), tf.constant(boxes)
    with tf.GradientTape() as tape:
        tape.watch([maps, boxes])
        out = roi_align.roi_align(maps, boxes, 3, ratio, static_shapes)
        total = tf.reduce_sum(out * weights)
    gradient, of_boxes = tape.gradient(total, [maps, boxes])
    assert of_boxes is None
    # The result is linear in the maps: the gradient gives it back for any other maps.
    other = rng.normal(size=maps.shape).astype(np.float32)
    want = tf.reduce_sum(roi_align.roi_align(other, boxes, 3, ratio, static_shapes) * weights)
    np.testing.assert_allclose(np.sum(gradient * other), want, rtol=1e-4)


@BOTH
def test_a_pyramid_pools_each_box_on_its_level(ratio, static_shapes):
    rng = np.random.default_rng(2)
    strides = (4, 8, 16, 32)
    maps = [rng.normal(size=(2, 512 // s, 640 // s, 3)).astype(np.float32) for s in strides]
    side = np.exp(rng.uniform(np.log(8), np.log(500), (2, 16, 2)))
    corner = rng.uniform(0, 1, side.shape) * ([640, 512] - side)
    boxes = np.concatenate([corner, corner + side], axis=-1).astype(np.float32)
    boxes[0, 0], boxes[0, 1] = [0, 0, 640, 512], 0
    level = np.sqrt(side.prod(-1)) / 224
    level = np.clip(np.floor(4 + np.log2(level)), 2, 5).astype(int)
    level[0, :2] = 5, 2
    np.testing.assert_array_equal(roi_align.levels_of(boxes, 4), level - 2)
    assert set(level.ravel()) == {2, 3, 4, 5}
    got = roi_align.pool(maps, strides, boxes, 7, ratio, static_shapes)
    for n, r in np.ndindex(2, 16):
        i = level[n, r] - 2
        want = numpy_roi_align(maps[i][n], boxes[n, r] / strides[i], 7, ratio)
        np.testing.assert_allclose(got[n, r], want, atol=5e-5)  # positions are up to 160
    few = boxes[:, :3]
    got = roi_align.pool(maps, strides, few, 7, ratio, static_shapes, aligned=False)
    for n, r in np.ndindex(2, 3):
        i = level[n, r] - 2
        want = numpy_roi_align(maps[i][n], few[n, r] / strides[i], 7, ratio, aligned=False)
        np.testing.assert_allclose(got[n, r], want, atol=5e-5)
    alone = roi_align.pool(maps[2:3], (16,), boxes, 7, ratio, static_shapes)
    want = roi_align.roi_align(maps[2], boxes / 16, 7, ratio)
    np.testing.assert_allclose(alone, want, atol=1e-5)


def test_levels_change_at_112_224_and_448_px():
    sides = tf.constant([10.0, 111.9, 112.1, 223.9, 224.0, 448.0, 2000.0])
    boxes = tf.stack([sides * 0, sides * 0, sides, sides], axis=-1)
    assert roi_align.levels_of(boxes, 4).numpy().tolist() == [0, 0, 1, 1, 2, 3, 3]
    assert roi_align.levels_of(boxes, 3).numpy().max() == 2
