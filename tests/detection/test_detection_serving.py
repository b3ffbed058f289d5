"""The SavedModel of a detection: what it answers to images of any sizes, good and bad."""

import io
import json
import pathlib
import re
import types

import keras
import numpy as np
import pytest
import serving
import tensorflow as tf
from detection_runs import CLASSES, JOINTS, detect, write_set
from PIL import Image
from small_resnet import four_stages

from moco_tf.backbones import heads
from moco_tf.backbones.encoder import Encoder
from moco_tf.commands import export
from moco_tf.detection import config, task
from moco_tf.detection.data import masks
from moco_tf.detection.serving import DetectionServer

BAD = (b"no image", b"")
NAMES = [c["name"] for c in CLASSES]


def grown(model, path, config, plan, *_, **__):
    """In place of training: heads whose outputs differ much from box to box."""
    for head in (model.network.box, model.network.mask, model.network.keypoint):
        for weight in head.weights:
            weight.assign(10 * weight)
    return plan.stop


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """Of a detection with all heads, whose test pads images as a request does."""
    root = tmp_path_factory.mktemp("detection")
    keras.utils.set_random_seed(0)
    Encoder(four_stages(), heads.mlp(8)).save(root / "encoder.keras")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task.fit, "fit", grown)
        patch.setattr(task.report, "write", lambda *_: None)  # there was no training to show
        detect(
            (write_set(root / "train", 4, 0), write_set(root / "test", 4, 1)),
            root / "encoder.keras",
            root / "run",
            keypoints=True,
            frozen_bn=True,
            data__test_short_px=72,
            lowest_score=0.3,
            test_batch_size=1,
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
    """The files of the four test images, of which one is upright."""
    return [path.read_bytes() for path in sorted((workdir.parent / "test").glob("*.png"))]


@pytest.fixture(scope="module")
def answers(served, contents):
    """The answers to these files."""
    return answer(served["serving_default"], contents)


def answer(signature, value):
    name = next(iter(signature.structured_input_signature[1]))
    return {k: v.numpy() for k, v in signature(**{name: tf.constant(value)}).items()}


def pixels(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_answers_equal_predictions_json(workdir, answers, contents):
    saved = json.loads((workdir / "predictions.json").read_text())
    assert answers["ok"].tolist() == [True] * 4
    images, rows = np.nonzero(answers["classes"] >= 0)
    assert len(saved) == len(rows) > 20 and len(np.unique(answers["classes"])) > 1
    for want, image, i in zip(saved, images, rows):
        got = {name: value[image, i] for name, value in answers.items() if name != "ok"}
        assert want["image_id"] == image + 1
        assert CLASSES[got["classes"]]["id"] == want["category_id"]
        assert got["class_names"].decode() == NAMES[got["classes"]]
        assert got["scores"] == pytest.approx(want["score"], abs=1e-5)
        x, y, w, h = want["bbox"]
        np.testing.assert_allclose(got["boxes"], [x, y, x + w, y + h], atol=1e-3)
        points = np.add(np.reshape(want["keypoints"], (-1, 3)), [0.5, 0.5, 0])  # from COCO's
        np.testing.assert_allclose(got["keypoints"], points, atol=1e-3)
        rle = masks.pasted_rle(got["masks"], got["boxes"], *pixels(contents[image]).shape[:2])
        assert rle["counts"].decode() == want["segmentation"]["counts"]


def test_an_image_is_answered_alike_in_any_company(served, contents):
    jpeg, webp, thin = io.BytesIO(), io.BytesIO(), io.BytesIO()
    image = Image.fromarray(pixels(contents[0]))
    image.crop((0, 0, 31, 17)).save(jpeg, "JPEG")
    image.resize((200, 150)).save(webp, "WEBP", lossless=True)
    image.resize((1, 300)).save(thin, "PNG")
    good = [contents[2], *(file.getvalue() for file in (jpeg, webp, thin)), contents[0]]
    answers = answer(served["detect_bytes"], [*BAD, *good, good[1][:300]])
    assert answers["ok"].tolist() == [False] * 2 + [True] * 5 + [False]
    for row in np.flatnonzero(~answers["ok"]):
        assert (answers["classes"][row] == -1).all() and (answers["class_names"][row] == b"").all()
        for name in ("boxes", "scores", "masks", "keypoints"):
            assert not answers[name][row].any()
    for row, content in enumerate(good, len(BAD)):
        height, width, _ = pixels(content).shape
        alone = answer(served["detect_bytes"], [content])
        by_pixels = answer(served["detect_images"], np.stack([pixels(content)] * 2))
        assert (answers["boxes"][row] <= [width, height] * 2).all()
        assert answers["scores"][row, 0] > 0
        for name in by_pixels:
            np.testing.assert_array_equal(alone[name][0], answers[name][row])
            if content is not good[1]:  # PIL may decode a JPEG to other pixels
                np.testing.assert_array_equal(by_pixels[name][1], answers[name][row])
    assert all(len(x) == 0 for x in answer(served["detect_bytes"], np.zeros(0, bytes)).values())


def test_images_are_scaled_and_padded_as_the_config_has_it():
    """50 x 100 px with a short side of 72 px, but a long one of 96 at most; padded to 64 x 96."""

    def predict(images, size):
        end = tf.cast(tf.reverse(size, [1]), tf.float32)[0]  # x, y
        corner = tf.cast(images[0, -1, -1], tf.float32)
        shape = tf.cast(tf.concat([tf.shape(images)[1:3], size[0]], axis=0), tf.float32)
        return {
            "boxes": tf.stack([tf.concat([end / 2, end + 1], axis=0), [0.0, 0.0, 0.0, 0.0]])[None],
            "score": tf.stack([corner[2], 0.0])[None],
            "label": tf.constant([[1, -1]]),
            "mask": tf.tile(tf.reshape(shape, [1, 1, 2, 2]), [1, 2, 1, 1]),
            "keypoints": tf.tile(tf.reshape([*tf.unstack(end), 0.5], [1, 1, 1, 3]), [1, 2, 1, 1]),
        }

    model = types.SimpleNamespace(network=types.SimpleNamespace(variables=[]), predict=predict)
    for square, padded in ((0, (64, 96)), (128, (128, 128))):
        data = config.Data(test_short_px=72, longest_px=96, square_px=square)
        server = DetectionServer(model, ["red", "green"], data, np.uint8([10, 20, 30]))
        answers = server.signatures()["detect_images"](tf.zeros([1, 50, 100, 3], tf.uint8))
        answers = {name: value.numpy() for name, value in answers.items()}
        assert answers["boxes"][0].tolist() == [[50, 25, 100, 50], [0] * 4]  # within the image
        assert answers["scores"][0].tolist() == [30, 0]
        assert answers["classes"][0].tolist() == [1, -1]
        assert answers["class_names"][0].tolist() == [b"green", b""]
        assert answers["masks"][0].tolist() == [[[*padded], [48, 96]], [[0, 0], [0, 0]]]
        assert answers["keypoints"][0].tolist() == [[[100, 50, 0.5]], [[0, 0, 0]]]


def test_it_is_loaded_and_loaded_on_without_python(exported, answers, contents, tmp_path):
    ops, _ = serving.ops_of(exported)
    assert {"NonMaxSuppressionV4", "DecodeJpeg", "IgnoreErrorsDataset"} <= ops
    assert not {op for op in ops if "Py" in op or "Numpy" in op or "Generator" in op}
    paths = [tmp_path / str(i) for i in range(3)]
    for path, content in zip(paths, (contents[0], contents[2], BAD[0])):
        path.write_bytes(content)
    in_c = serving.run_c_client(exported, paths, threads=2, requests=4, output="scores")
    assert [file["ok"] for file in in_c["files"]] == [True, True, False]
    scores = [file["embedding"] for file in in_c["files"]]  # the client's name of any output
    np.testing.assert_allclose(scores[:2], answers["scores"][[0, 2]], atol=1e-5)
    assert not any(scores[2]) and (in_c["requests"], in_c["wrong"]) == (8, 0)


def test_metadata_and_warm_up_requests(exported, served):
    metadata = json.loads((exported / "assets" / "metadata.json").read_text())
    assert metadata["classes"] == NAMES and metadata["keypoint_names"] == JOINTS
    assert metadata["config"]["data"]["test_short_px"] == 72
    assert len(metadata["checkpoint"]["sha256"]) == 64 and "box_ap" in metadata["metrics"]
    requests = serving.warmup_requests(exported)
    assert {signature for signature, _ in requests} == set(served)
    for signature, inputs in requests[1:]:  # the first, of the default, is the second
        ((name, value),) = inputs.items()
        got = served[signature](**{name: tf.constant(value)})
        assert all(len(x) == 1 for x in got.values()) and got.get("ok", [True])[0]


def test_what_cannot_be_served_is_refused(workdir, tmp_path):
    with pytest.raises(ValueError, match="has no options.*Received: resize_px. Leave them out"):
        export.export(str(workdir), "savedmodel", str(tmp_path / "out"), resize_px=64)
    (tmp_path / "config.json").write_text('{"task": "detection"}')  # of a run that is not finished
    message = f"needs workdirs of finished evaluations, with a results.json. Received: '{tmp_path}'"
    with pytest.raises(ValueError, match=re.escape(message)):
        export.export(str(tmp_path), "savedmodel", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
