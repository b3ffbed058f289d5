"""Detection as a user runs it: trained, killed and resumed, tested, reported."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from detection_runs import JOINTS, command, detect, make_config, metric_names, write_set
from detection_sets import annotation, write_coco
from pycocotools import mask as coco_mask
from small_resnet import four_stages

from moco_tf import schema
from moco_tf.backbones import heads
from moco_tf.backbones.encoder import Encoder
from moco_tf.data import labelled
from moco_tf.data.recipes import moco
from moco_tf.detection import config as configs
from moco_tf.detection import tester as testing
from moco_tf.detection.build import make_detector
from moco_tf.detection.data import annotations as records
from moco_tf.evaluation import report


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The file of an untrained encoder."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    Encoder(four_stages(), heads.mlp(8)).save(path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Addresses of training and test images."""
    root = tmp_path_factory.mktemp("sets")
    return write_set(root / "train", 13, 0), write_set(root / "test", 7, 1)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_and_is_reported(data, encoder, tmp_path):
    for name in ("whole", "killed"):
        args = command(encoder, tmp_path / name, data)
        if name == "killed":
            tiny.run_to_signal(args, "SIGKILL", 5)
        output = tiny.run(args)
        assert "detection (R-CNN c4 with masks, end to end, 10 steps of 4 images" in output
        assert "7 test images of 2 classes" in output
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "killed")
    for name in ("results.json", "predictions.json"):
        whole, killed = (json.loads((tmp_path / n / name).read_text()) for n in ("whole", "killed"))
        if name == "results.json":
            whole, killed = ({k: v[k] for k in ("metrics", "details")} for v in (whole, killed))
        assert whole == killed
    lines = tiny.metrics(tmp_path / "whole")
    assert [line["step"] for line in lines if "test_mask_ap50" in line] == [0, 5]
    assert {"rpn_class", "rpn_box", "box_class", "box_delta", "mask"} <= lines[1].keys()


@pytest.mark.slow
def test_what_two_replicas_learn_is_scored_shown_saved_and_found_by_one(
    data, encoder, tmp_path, mirrored
):
    options = {"width_divisor": 8, "steps": 80, "test_every_steps": 1000}
    options |= {"optimizer__milestones_steps": (65,), "optimizer__learning_rate": 0.08}
    workdir = tmp_path / "a"
    record = detect(data, encoder, workdir, mirrored(2), **options)
    assert record["metrics"].keys() == metric_names("box", "mask")
    assert record["metrics"]["box_ap50"]["value"] > 0.5
    assert record["metrics"]["mask_ap50"]["value"] > 0.5
    assert record["details"]["box"]["per_class"].keys() == {"red", "<green>"}
    assert json.loads((workdir / "results.json").read_text()) == record
    page = (workdir / "report.html").read_text()
    # Curves, precisions, bars of boxes and of masks, 7 test images.
    assert page.count("data:image/png;base64,") == 11 and "http" not in page
    assert "<green>" not in page

    network = keras.models.load_model(workdir / "detector.keras", compile=False)
    config = schema.from_dict(configs.Detection, record["config"])
    model = make_detector(config, network, moco.v2)
    test = records.open_annotations(data[1], training=False, masks=True)
    fill = labelled.fill_of(moco.v2)
    tester = testing.Tester(config, model, tf.distribute.get_strategy(), test, fill)
    saved = json.loads((workdir / "predictions.json").read_text())
    for image, detection in enumerate(tester.predictions(), 1):
        of_image = [p for p in saved if p["image_id"] == image]
        assert len(of_image) == len(detection["score"])
        for i, p in enumerate(of_image):
            x, y, w, h = p["bbox"]
            assert p["category_id"] == test.category_ids[detection["label"][i]]
            assert p["score"] == pytest.approx(float(detection["score"][i]), abs=1e-3)
            np.testing.assert_allclose(detection["boxes"][i], [x, y, x + w, y + h], atol=0.1)
            assert p["segmentation"]["size"] == list(test.sizes[image - 1])


SHORT = {"masks": False, "steps": 1, "optimizer__milestones_steps": (), "random_init": True}


def test_voc_metrics_of_an_untrained_control(data, encoder, tmp_path):
    voc = {"architecture": "c4", "metric": "voc", "data__check_images": False}
    record = detect(data, encoder, tmp_path / "voc", **SHORT, **voc)
    assert record["metrics"].keys() == metric_names("box") and "AP of voc" in record["protocol"]
    table = report.compare([str(tmp_path / "voc")] * 2, str(tmp_path / "all"))
    assert "| box AP | box AP50 |" in table and "| untrained | 0." in table


@pytest.mark.slow
def test_keypoints_and_frozen_bn(data, encoder, tmp_path):
    keypoints = {"architecture": "dc5", "keypoints": True, "frozen_bn": True, "lowest_score": 0.0}
    keypoints["data__keep_empty"] = True
    record = detect(data, encoder, tmp_path / "keypoints", **SHORT, **keypoints)
    correct = {f"keypoint_pck{share}" for share in ("05", "10", "20")}  # joints are not COCO's
    assert record["metrics"].keys() == metric_names("box") | correct
    assert record["data"]["train_images"] == 13  # the last has no objects
    assert record["data"]["keypoint_names"] == JOINTS
    saved = json.loads((tmp_path / "keypoints" / "predictions.json").read_text())
    assert len(saved) == 70 and all(len(p["keypoints"]) == 51 for p in saved)


def test_what_is_found_is_brought_back_to_the_image():
    """A box of 20 x 10 px in an input of twice the width and four times the height."""
    output = {
        "boxes": np.array([[20, 40, 60, 80], [0, 0, 0, 0]], np.float32),
        "score": np.array([0.9, 0.0], np.float32),
        "label": np.array([1, -1]),
        "mask": np.ones((2, 28, 28), np.float32),
        "keypoints": np.array([[[20, 40, 5.0]], [[0, 0, 0]]], np.float32),
        "factor": np.array([2, 4], np.float32),
    }
    detection = testing.in_image(output, 15, 100)
    assert detection["boxes"].tolist() == [[10, 10, 30, 15]]  # within the image
    assert detection["keypoints"].tolist() == [[[10, 10, 5]]]
    mask = coco_mask.decode(detection["rles"][0])
    assert mask.shape == (15, 100) and mask[10:15, 10:30].all()
    assert len(detection["score"]) == len(detection["label"]) == 1


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("architecture", "c5", "must be one of c4, dc5, fpn, retinanet. Received: 'c5'"),
        (
            "keypoints",
            True,
            "`--config.keypoints` must be false with architecture=c4, whose regions",
        ),
        ("metric", "voc", "`--config.masks` must be false with metric=voc"),
        ("regions", 65, "at most the proposals that they are drawn from, 64"),
        ("data.pad_px", 48, "`--config.data.pad_px` must be a positive multiple of 32"),
        ("box_beta", -1.0, "`--config.box_beta` must be zero or more"),
        ("data.square_px", 64, "that is at least data.longest_px=96"),
        ("data.repeat_threshold", 1.0, "`--config.data.repeat_threshold` must be in [0, 1)"),
        ("optimizer.milestones_steps", (40,), "below the number of steps, 10"),
    ],
)
def test_a_config_that_cannot_be_is_refused(field, value, message, data):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_config(data, **{"architecture": "c4", field: value})


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--config.data.train=coco:/nope"], "coco:IMAGES_DIR,JSON, a folder and a file"),
        ([f"--config={tiny.ROOT}/configs/eval/knn.py"], "must be one for --task=detection"),
    ],
)
def test_a_users_mistake_ends_in_a_message(flags, message, data, encoder, tmp_path):
    args = command(encoder, tmp_path / "new", data, *flags)
    if flags[0].startswith("--config="):
        args = [a for a in args if not a.startswith("--config")] + flags
    output = tiny.run(args, code=1)
    assert message in output and "Traceback" not in output
    assert not (tmp_path / "new").exists()


def test_sets_that_do_not_fit_are_refused(data, encoder, tmp_path):
    other = write_coco(tmp_path / "other", [(64, 64)], [annotation(1, (2, 2, 30, 30))])
    with pytest.raises(ValueError, match="no other classes .*objects of box"):
        detect((data[0], other), encoder, tmp_path / "new")
    with pytest.raises(ValueError, match=r"instanceIds.png of gtFine. Missing: .*\(7 of 7\)"):
        detect(data, encoder, tmp_path / "new", metric="cityscapes")
    # What was read of the annotations is kept for the next try, nothing else.
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sources"]
