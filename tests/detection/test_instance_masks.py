"""Masks as crops and pasted back, against slow definitions and COCO's own tools."""

import numpy as np
import pytest
import tensorflow as tf
from detection_sets import COCO, tiny_coco
from pycocotools import mask as coco_mask

from moco_tf.detection.data import geometry, masks
from moco_tf.detection.data.annotations import open_annotations


def pasted_slowly(probabilities, box, height, width):
    """Each pixel's centre, bilinear among the centres of cells, which are 0 beyond the mask."""
    side = len(probabilities)
    image = np.zeros((height, width), bool)
    beyond = np.pad(probabilities, 1)
    for y in range(height):
        for x in range(width):
            u = (x + 0.5 - box[0]) / (box[2] - box[0]) * side - 0.5
            v = (y + 0.5 - box[1]) / (box[3] - box[1]) * side - 0.5
            i, j = int(np.floor(v)), int(np.floor(u))
            if -1 <= i < side and -1 <= j < side:
                a, b = v - i, u - j
                four = beyond[i + 1 : i + 3, j + 1 : j + 3]
                value = np.array([1 - a, a]) @ four @ np.array([1 - b, b])
                image[y, x] = value >= 0.5
    return image


@pytest.mark.parametrize(
    "box",
    [
        (3.2, 4.7, 25.1, 30.9),
        (-5.5, -3.0, 12.0, 50.0),  # beyond the image on two sides
        (30.0, 20.0, 60.0, 60.0),
        (10.2, 10.3, 10.9, 10.8),  # less than a pixel
        (-20.0, 5.0, -3.0, 9.0),  # outside
        (80.0, 90.0, 99.0, 99.0),
    ],
)
def test_pasting_is_bilinear_at_the_centres_of_pixels(box):
    probabilities = np.random.default_rng(0).random((28, 28))
    probabilities[8:20, 8:20] = 1
    want = pasted_slowly(probabilities, box, 40, 50)
    np.testing.assert_array_equal(masks.paste(probabilities, box, 40, 50), want)
    rle = masks.pasted_rle(probabilities, box, 40, 50)
    np.testing.assert_array_equal(coco_mask.decode(rle), want)
    assert rle == coco_mask.encode(np.asfortranarray(want.astype(np.uint8)))


def test_a_box_that_is_full_is_pasted_whole():
    image = masks.paste(np.ones((28, 28)), (5, 6, 15, 26), 40, 50)
    want = np.zeros((40, 50), bool)
    want[6:26, 5:15] = True
    np.testing.assert_array_equal(image, want)
    empty = masks.pasted_rle(np.zeros((28, 28)), (5, 6, 15, 26), 40, 50)
    assert coco_mask.area(empty) == 0 and coco_mask.decode(empty).shape == (40, 50)


def test_polygons_fill_their_share_of_the_box():
    lower = np.array([10.0, 20, 50, 60, 10, 60])  # a triangle, half of its box
    left = np.array([10.0, 20, 20, 20, 20, 60, 10, 60])
    right = np.array([40.0, 20, 50, 20, 50, 60, 40, 60])
    boxes = np.array([[10.0, 20, 50, 60]] * 3)
    crops = masks.crops_of_polygons([[lower], [], [left, right]], boxes)
    assert crops.shape == (3, 112, 112) and crops.dtype == np.uint8
    row, column = np.mgrid[:112, :112]
    assert np.mean(crops[0] == (column < row)) > 0.99  # but for the diagonal
    assert not crops[1].any()
    np.testing.assert_array_equal(crops[2], (column < 28) | (column >= 84))
    assert not masks.crops_of_polygons([[], []], boxes[:2]).any()


def test_bitmaps_are_cropped_by_area():
    rng = np.random.default_rng(0)
    bitmap = rng.random((30, 40)) < 0.5
    box = (2.5, 3.25, 33.0, 28.5)
    fine = bitmap.repeat(224, axis=0).repeat(224, axis=1)  # 224 samples a pixel, exact here
    ys = (3.25 * 224 + np.arange(112 * 50) * (25.25 * 2) / 50 + 0.25).astype(int)
    xs = (2.5 * 224 + np.arange(112 * 61) + 0.5).astype(int)
    share = fine[np.ix_(ys, xs)].reshape(112, 50, 112, 61).mean(axis=(1, 3))
    crop = masks.crop_of_bitmap(bitmap, box)
    clear = np.abs(share - 0.5) > 0.02
    np.testing.assert_array_equal(crop[clear], share[clear] > 0.5)
    square = bitmap[:28, :28]
    np.testing.assert_array_equal(masks.crop_of_bitmap(square, (0, 0, 28, 28))[::4, ::4], square)


def test_packed_masks_are_the_same_in_a_graph():
    rng = np.random.default_rng(0)
    crops = rng.random((5, 112, 112)) < np.linspace(0, 1, 5)[:, None, None]
    packed = [masks.pack(crop) for crop in crops]
    for bytes_, crop in zip(packed, crops):
        np.testing.assert_array_equal(masks.unpack(bytes_), crop)
    unpacked = tf.function(masks.unpack_in_graph)(tf.constant([*packed, b""]))
    assert unpacked.dtype == tf.uint8
    np.testing.assert_array_equal(unpacked, np.concatenate([crops, np.zeros((1, 112, 112))]))
    assert masks.unpack_in_graph(tf.constant([], tf.string)).shape == (0, 112, 112)


def iou(a, b):
    return np.sum(a & b) / max(np.sum(a | b), 1)


@pytest.mark.skipif(not COCO.exists(), reason="needs tiny_coco beside the project")
@pytest.mark.parametrize("as_rle", [False, True])
def test_cropped_and_pasted_masks_are_the_true_ones(as_rle, monkeypatch):
    if as_rle:  # polygons become RLE of the whole image, which are cropped as bitmaps
        from moco_tf.detection.data.objects import Objects

        def add(self, polygons):
            self.add_rle(masks.rle_of_polygons([np.array(p) for p in polygons], 640, 640))

        monkeypatch.setattr(Objects, "add_polygons", add)
        monkeypatch.setattr(geometry, "examine", lambda raw, pairs: None)  # wants the images' sizes
    kept = open_annotations(tiny_coco("train"), training=True, masks=True)
    whole = open_annotations(tiny_coco("train"), training=False, masks=True)
    number = [whole.ids.index(i) for i in kept.ids]
    image = np.repeat(np.arange(kept.num_examples), kept.counts)
    ious, areas = [], []
    for i, packed in enumerate(kept.masks):
        start = whole.offsets[number[image[i]]] - kept.offsets[image[i]]
        true = coco_mask.decode(whole.rles[start + i]).astype(bool)
        assert (packed == b"") == kept.crowd[i]
        if packed:
            pasted = masks.paste(masks.unpack(packed), kept.boxes[i], *true.shape)
            ious.append(iou(pasted, true))
            areas.append(kept.area[i])
    ious, areas = np.array(ious), np.array(areas)
    assert np.mean(ious[areas > 32**2]) > 0.97 and ious[areas > 32**2].min() > 0.8
    assert np.mean(ious) > 0.9
