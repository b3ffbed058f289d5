"""Annotations kept in a run's folder: equal to those of the files, and only for those."""

import dataclasses
import logging
import os

import numpy as np
import pytest
from densepose_sets import write_persons
from detection_sets import annotation, write_coco
from pycocotools import mask as coco_mask

from moco_tf.detection.data import annotations as records
from moco_tf.detection.data.annotations import open_annotations

BOX = (1, 2, 30, 30)
RUNS = {"size": [40, 50], "counts": [0, 40 * 10, 40 * 40]}
NAMES = ["nose", "left_eye", "right_eye"]
MASKED = {"masks": True, "keypoints": True, "keypoint_sigmas": (0.1, 0.2, 0.3)}


@pytest.fixture
def address(tmp_path):
    """Polygons, run lengths as numbers and as text, a crowd, and an object that is dropped."""
    text = {"size": [40, 50], "counts": coco_mask.frPyObjects(RUNS, 40, 50)["counts"].decode()}
    masks = [[[1, 2, 30, 4, 9, 30]], RUNS, text, [[1, 2, 3, 4]]]
    points = {"keypoints": [3, 4, 2, 0, 0, 0, 8, 9, 1]}
    objects = [annotation(1 + i % 2, BOX, segmentation=m, **points) for i, m in enumerate(masks)]
    objects.append(annotation(1, BOX, segmentation=RUNS, iscrowd=1, **points))
    categories = [{"id": 7, "name": "kübel", "keypoints": NAMES}]
    return write_coco(tmp_path / "set", [(40, 50)] * 3, objects, categories)


@pytest.fixture
def examined(monkeypatch):
    """The addresses that were examined, one for each time."""
    addresses, examine = [], records.examine

    def counted(address, **options):
        addresses.append(address)
        return examine(address, **options)

    monkeypatch.setattr(records, "examine", counted)
    return addresses


def assert_equal(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert type(x) is type(y), field.name
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, field.name
            np.testing.assert_array_equal(x, y, err_msg=field.name)
        else:
            assert x == y, field.name


@pytest.mark.parametrize("training", [True, False])
def test_kept_annotations_are_those_of_the_files(training, address, examined, tmp_path, caplog):
    caplog.set_level(logging.INFO, "moco_tf")
    options = {"training": training, **MASKED}
    want = open_annotations(address, **options)
    told = caplog.record_tuples[:]
    for _ in range(2):
        caplog.clear()
        kept = open_annotations(address, index_dir=str(tmp_path / "sources"), **options)
        assert_equal(kept, want)
        assert caplog.record_tuples == told
    assert len(examined) == 2  # without the folder, and at the first start with it


@pytest.mark.parametrize("training", [True, False])
def test_kept_densepose_is_that_of_the_file(training, examined, tmp_path):
    address = write_persons(tmp_path / "set", 2)
    options = {"training": training, "densepose": True}
    want = open_annotations(address, **options)
    for _ in range(2):
        assert_equal(open_annotations(address, index_dir=str(tmp_path / "new"), **options), want)
    assert len(examined) == 2


def test_a_foreign_or_damaged_cache_is_ignored_and_written_again(
    address, examined, tmp_path, caplog
):
    folder = tmp_path / "sources"

    def start(**options):
        caplog.clear()
        count = len(examined)
        options = {"training": True, "masks": True, "index_dir": str(folder), **options}
        annotations = open_annotations(address, **options)
        warned = [m for m in caplog.messages if "is ignored and written again" in m]
        assert len(examined) - count == (1 if warned else 0)
        return annotations, warned

    folder.mkdir()
    want = open_annotations(address, training=True, masks=True, index_dir=str(folder))
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    assert not start()[1]
    damaged = bytearray(whole)
    damaged[damaged.index(want.masks[0])] ^= 1
    for content in (whole[: len(whole) // 2], b"", b"none", bytes(damaged)):
        path.write_bytes(content)
        annotations, warned = start()
        assert_equal(annotations, want)
        assert "It is damaged" in warned[0] and str(path) in warned[0]
        assert not start()[1]
    assert "have changed" in start(keep_empty=True)[1][0]
    assert start()[0].num_examples == 2
    file = address.partition(",")[2]
    os.utime(file, ns=(1, 1))
    assert "have changed" in start()[1][0]
    assert not start()[1]
    test = open_annotations(address, training=False, masks=True, index_dir=str(folder))
    assert test.num_examples == 3 and not start()[1]  # a file of its own
