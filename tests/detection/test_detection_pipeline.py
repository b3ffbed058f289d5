"""Batches for detectors: what is where in them, against the images and NumPy."""

import logging

import numpy as np
import pytest
import tensorflow as tf
from detection_sets import FILL, NAMES, annotation, write_coco
from PIL import Image

from moco_tf.data import bad_images
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.detection import config as configs
from moco_tf.detection.data import pipeline, scaling
from moco_tf.detection.data.annotations import open_annotations

SIZES = [(40, 60), (50, 40), (60, 60), (44, 70), (64, 40), (30, 64), (70, 41), (36, 50)]


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    """Eight images with a white box each, whose mask is its upper left triangle, and a crowd."""
    rng = np.random.default_rng(0)
    records = []
    for number, (height, width) in enumerate(SIZES, 1):
        x, y = rng.integers(2, width // 2), rng.integers(2, height // 2)
        box = [int(v) for v in (x, y, x + width // 3, y + height // 3)]
        triangle = [box[0], box[1], box[2], box[1], box[0], box[3]]
        points = [box[0], box[1], 2, box[0], box[3] - 1, 1, 0, 0, 0]
        records.append(annotation(number, box, segmentation=[triangle], keypoints=points))
    crowd = {"iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [2400]}}
    records.append(annotation(1, (0, 0, 60, 5), keypoints=[0] * 9, **crowd))
    categories = ({"id": 7, "name": "box", "keypoints": NAMES},)
    folder = tmp_path_factory.mktemp("set") / "set"
    address = write_coco(folder, SIZES, records, categories)
    return open_annotations(address, training=True, masks=True, keypoints=True)


def batches(annotations, count, batch=2, start=0, host=0, hosts=1, replicas=1, **options):
    layout = BatchLayout(batch, hosts, max(hosts, replicas))
    options = {"fill": FILL, "short_px": (40, 80), "longest_px": 120, "max_objects": 3, **options}
    data = pipeline.detection_dataset(annotations, layout, host=host, start_step=start, **options)
    return list(data.take(count).as_numpy_iterator())


def white_box(image):
    white = image[..., 0] > 127
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def test_batches_are_a_function_of_seed_and_step(annotations):
    whole = batches(annotations, 9, 4)
    resumed = batches(annotations, 3, 4, start=6)
    hosts = [batches(annotations, 9, 4, host=h, hosts=2) for h in range(2)]
    replicas = batches(annotations, 18, 4, replicas=2)
    always = {"x", "size", "boxes", "label", "step", "ok", "name"}
    assert set(whole[0]) == always | {"mask", "keypoints"}
    for name in whole[0]:
        for a, b in zip(whole[6:], resumed, strict=True):
            np.testing.assert_array_equal(a[name], b[name])
        for parts in (zip(*hosts), zip(replicas[::2], replicas[1::2])):
            for a, several in zip(whole, parts, strict=True):
                np.testing.assert_array_equal(a[name], np.concatenate([b[name] for b in several]))
    assert [b["step"].tolist() for b in whole[:2]] == [[0] * 4, [1] * 4]
    other = batches(annotations, 9, 4, seed=1)
    assert any(not np.array_equal(a["x"], b["x"]) for a, b in zip(whole, other))


def test_objects_are_where_they_are_in_the_images(annotations):
    flips = []
    for batch in batches(annotations, 40):
        for i in range(2):
            height, width = batch["size"][i]
            x, (left, top, right, bottom) = batch["x"][i], batch["boxes"][i, 0]
            assert (x[height:] == FILL).all() and (x[:, width:] == FILL).all()
            ends = white_box(x[:height, :width])
            np.testing.assert_allclose(batch["boxes"][i, 0], ends, atol=0.6)
            names = bad_images.decode_names(batch["name"])
            original = SIZES[int(names[i][-7:-4]) - 1]
            np.testing.assert_allclose(batch["size"][i] / original, height / original[0], rtol=0.02)

            nose, visible, unlabeled = batch["keypoints"][i, 0]  # nose, left eye, right eye
            flip = nose[0] > (left + right) / 2
            flips.append(flip)
            if flip:  # the left eye of the image is the right one of its mirror image
                visible, unlabeled = unlabeled, visible
            pixel = height / original[0]
            side = right if flip else left
            inwards = -pixel if flip else pixel
            np.testing.assert_allclose(nose, [side + inwards / 2, top + pixel / 2, 2], atol=0.7)
            want = [side + inwards / 2, bottom - pixel / 2, 1]
            np.testing.assert_allclose(visible, want, atol=0.7)
            assert not unlabeled.any()
            triangle = np.add.outer(np.arange(112), np.arange(112)) < 111
            triangle = triangle[:, ::-1] if flip else triangle
            assert np.mean(batch["mask"][i, 0] == triangle) > 0.98
            crowd = original == SIZES[0]
            assert batch["label"][i].tolist() == [0, -2 if crowd else -1, -1]
            assert not batch["boxes"][i, 2:].any() and not batch["mask"][i, 1:].any()
            if crowd:
                want = [0, 0, width, 5 * width / 60]
                np.testing.assert_allclose(batch["boxes"][i, 1], want, atol=0.2)
    assert 0.3 < np.mean(flips) < 0.7


def test_upright_and_lying_images_are_apart_and_all_equally_often(annotations):
    seen, shorts, shapes = [], [], set()
    for batch in batches(annotations, 80, pad_px=16):
        upright = batch["size"][:, 0] > batch["size"][:, 1]
        assert upright.all() or not upright.any()
        needed = batch["size"].max(axis=0)
        assert batch["x"].shape[1:3] == tuple(-(-needed // 16) * 16)
        shorts += batch["size"].min(axis=1).tolist()
        shapes.add(batch["x"].shape)
        seen += bad_images.decode_names(batch["name"])
    for first in range(0, 160, 16):  # of 16 rows 10 are of the 5 lying images, 6 of the 3 others
        assert np.unique(seen[first : first + 16], return_counts=True)[1].tolist() == [2] * 8
    assert len({tuple(seen[first : first + 16]) for first in range(0, 160, 16)}) == 10
    possible = {min(shortest_edge(*size, short, 120)) for size in SIZES for short in (40, 80)}
    assert set(shorts) <= possible and {40, 80} <= set(shorts) and len(shapes) < 15
    mixed = batches(annotations, 8, 4)  # three upright images are no batch of four
    assert any(0 < np.sum(b["size"][:, 0] > b["size"][:, 1]) < 4 for b in mixed)
    assert batches(annotations, 1, 16)[0]["ok"].all()  # more than there are


def test_a_square_is_a_static_shape(annotations):
    layout = BatchLayout(2, 1, 1)
    options = {"fill": FILL, "short_px": (40,), "longest_px": 60, "square_px": 64}
    data = pipeline.detection_dataset(annotations, layout, **options)
    assert all(spec.shape.is_fully_defined() for spec in data.element_spec.values())
    (batch,) = data.take(1).as_numpy_iterator()
    assert batch["x"].shape == (2, 64, 64, 3) and batch["label"].shape == (2, 2)
    assert batch["size"].max() <= 60
    with pytest.raises(
        ValueError, match="`square_px` must be None, or at least `longest_px`.*64, 99"
    ):
        pipeline.detection_dataset(annotations, layout, **{**options, "longest_px": 99})


def test_a_batch_has_room_for_all_objects(tmp_path):
    """As many as LVIS v0.5 has in one image; facebookresearch/detectron2, which has no limit,
    detectron2/data/dataset_mapper.py.
    """
    records = [annotation(1, (i % 49, i // 49, i % 49 + 2, i // 49 + 8)) for i in range(294)]
    sizes = [(40, 60), (40, 60)]
    address = write_coco(tmp_path / "set", sizes, [*records, annotation(2, (0, 0, 9, 9))])
    annotations = open_annotations(address, training=True)
    (batch,) = batches(annotations, 1, 2, max_objects=configs.Data().max_objects)
    assert sorted((batch["label"] == 0).sum(1)) == [1, 294]


def test_of_too_many_objects_a_random_subset_is_taken(tmp_path, caplog):
    caplog.set_level(logging.INFO, "moco_tf")
    records = [annotation(1, (i, 0, i + 2, 8)) for i in range(20)]
    annotations = open_annotations(write_coco(tmp_path / "set", [(40, 40)], records), training=True)
    options = {"fill": FILL, "short_px": (40,), "max_objects": 5}
    data = pipeline.detection_dataset(annotations, BatchLayout(1), **options)
    assert "1 images have more than 5 objects" in caplog.messages[-1]
    taken = []
    for batch in data.take(60).as_numpy_iterator():
        x1, x2 = batch["boxes"][0, :, 0], batch["boxes"][0, :, 2]
        assert len(set(x1)) == 5 and (x2 - x1 == 2).all() and not batch["label"].any()
        taken += x1.tolist()
    assert len(set(taken)) > 20  # mirrored ones lie elsewhere


def shortest_edge(height, width, short, longest):
    scale = min(short / min(height, width), longest / max(height, width))
    return int(height * scale + 0.5), int(width * scale + 0.5)


def test_sizes_are_those_of_the_short_side():
    rng = np.random.default_rng(0)
    sizes = rng.integers(20, 1500, (200, 2))
    for short, longest in ((800, 1333), (640, 1333), (480, 500)):
        want = [shortest_edge(*size, short, longest) for size in sizes.tolist()]
        resized = scaling.resized(tf.constant(sizes, tf.int32), short, longest).numpy()
        np.testing.assert_array_equal(resized, want)
    resized = scaling.resized(tf.constant([[480, 640], [427, 640]]), 800, 1333).numpy()
    assert resized.tolist() == [[800, 1067], [800, 1199]]


@pytest.mark.parametrize("size", [(31, 47), (90, 130), (20, 200)])
def test_images_are_scaled_as_by_pil(size):
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    want = np.asarray(Image.fromarray(image).resize(size[::-1], Image.BILINEAR), int)
    scaled = scaling.scaled(tf.constant(image), size).numpy()
    assert scaled.dtype == np.uint8 and np.abs(scaled - want).max() <= 1


@pytest.mark.parametrize("square", [0, 128])
def test_each_test_image_comes_once_and_finds_its_place(annotations, square):
    options = {"fill": FILL, "short_px": 80, "longest_px": 120, "pad_px": 16, "square_px": square}
    parts = [
        list(pipeline.test_dataset(annotations, 6, rows, **options).as_numpy_iterator())
        for rows in (slice(0, 2), slice(2, 6))
    ]
    seen = []
    for batch in zip(*parts, strict=True):
        assert batch[0]["x"].shape[1:] == batch[1]["x"].shape[1:]
        needed = np.concatenate([b["size"] for b in batch]).max(axis=0)
        want = (square, square) if square else tuple(-(-needed // 16) * 16)
        assert batch[0]["x"].shape[1:3] == want
        for b in batch:
            for x, size, index, factor in zip(b["x"], b["size"], b["index"], b["factor"]):
                seen.append(index)
                if index < 0:
                    continue
                original = annotations.sizes[index]
                assert size.tolist() == list(shortest_edge(*original.tolist(), 80, 120))
                np.testing.assert_allclose(factor, (size / original)[::-1], rtol=1e-6)
                ends = white_box(x[: size[0], : size[1]])
                box = annotations.boxes[annotations.offsets[index]]
                np.testing.assert_allclose(ends / [*factor, *factor], box, atol=0.6)
    assert sorted(seen) == [-1] * 4 + list(range(8))
