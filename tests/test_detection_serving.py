"""The SavedModel of a detection: what it answers to images of any sizes, good and bad."""

import io
import json
import pathlib
import re
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
import serving
import tensorflow as tf
from PIL import Image
from test_detection_run import CLASSES, JOINTS, detect, write

from moco_tf import export
from moco_tf.backbones import heads, resnet
from moco_tf.transfer.detection import config, masks
from moco_tf.transfer.detection.serving import DetectionServer


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of a detection with all heads, trained for a step; all regions are detections."""
    root = tmp_path_factory.mktemp("detection")
    keras.utils.set_random_seed(0)
    heads.encoder(resnet.resnet18(width=8), heads.mlp, 8).save(root / "encoder.keras")
    detect(
        (write(root / "train", 4, 0), write(root / "test", 4, 1)),
        root / "encoder.keras",
        root / "run",
        keypoints=True,
        frozen_bn=True,
        lowest_score=0.0,
        data__test_short_px=72,
        steps=1,
        optimizer__milestones_steps=(),
        test_batch_size=1,  # padded as a request is
    )
    return root / "run"


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    output = tmp_path_factory.mktemp("served") / "moco"
    return pathlib.Path(export.export(str(workdir), "savedmodel", str(output)))


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported)).signatures


@pytest.fixture(scope="module")
def contents(workdir):
    """The test images as files have them: one upright, the others not."""
    paths = sorted((workdir.parent / "test").glob("*.png"))
    assert len(paths) == 4
    return [path.read_bytes() for path in paths]


def answer(signature, value):
    name = next(iter(signature.structured_input_signature[1]))
    return {k: v.numpy() for k, v in signature(**{name: tf.constant(value)}).items()}


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_it_finds_what_predictions_json_holds(workdir, served, contents):
    saved = json.loads((workdir / "predictions.json").read_text())
    found = answer(served["serving_default"], contents)
    assert found["ok"].all() and found["boxes"].shape == (4, 10, 4)
    assert len(saved) == np.sum(found["classes"] >= 0) > 20
    names = {c["id"]: c["name"] for c in CLASSES}
    row = 0
    for image, content in enumerate(contents):
        height, width, _ = pixels(content).shape
        for i in np.flatnonzero(found["classes"][image] >= 0):
            want, box = saved[row], found["boxes"][image, i]
            row += 1
            assert want["image_id"] == image + 1
            name = names[want["category_id"]]
            assert found["class_names"][image, i].decode() == name
            assert [c["name"] for c in CLASSES][found["classes"][image, i]] == name
            assert found["scores"][image, i] == pytest.approx(want["score"], abs=1e-6)
            x, y, w, h = want["bbox"]
            np.testing.assert_allclose(box, [x, y, x + w, y + h], atol=1e-4)
            rle = masks.pasted_rle(found["masks"][image, i], box, height, width)
            assert rle["counts"].decode() == want["segmentation"]["counts"]
            points = np.add(np.reshape(want["keypoints"], (-1, 3)), [0.5, 0.5, 0])  # COCO's
            np.testing.assert_allclose(found["keypoints"][image, i], points, atol=1e-4)
