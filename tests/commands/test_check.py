"""`python -m moco_tf check`: what it prints, its page, its exit code."""

import base64
import io
import json
import re

import numpy as np
import pytest
from detection_sets import annotation
from home_made import BOX, coco, crowd, set_at
from PIL import Image

from moco_tf import __main__ as listing
from moco_tf.commands import check
from moco_tf.detection import check as detection_check


@pytest.fixture
def checked(tmp_path, capsys):
    """`checked(address, *flags)`: exit code, what is printed, and the page."""

    def run(address, *flags):
        output = tmp_path / "check.html"
        code = check.main([address, *flags, f"--output={output}"])
        printed = capsys.readouterr()
        page = output.read_text() if output.exists() else ""
        return code, printed.out + printed.err, page

    return run


def pictures(page):
    encoded = re.findall(r'data:image/png;base64,([^"]+)', page)
    return [np.array(Image.open(io.BytesIO(base64.b64decode(e))).convert("RGB")) for e in encoded]


def test_a_sound_set_is_told_and_drawn(tmp_path, checked):
    points = [6, 6, 2, 19, 19, 2]
    records = [annotation(1, BOX, keypoints=points), crowd(1, keypoints=[0] * 6)]
    classes = [{"id": 7, "name": "<box>", "keypoints": ["left_a", "right_a"]}]
    address = coco(tmp_path, records, count=2, categories=classes)
    code, printed, page = checked(address, "--masks", "--keypoints")
    assert code == 0
    for text in (
        r"images +2, 50 x 40 px \(width x height\)",
        r"without objects +1\n",
        r"objects +2 of 1 classes",
        r"crowds +1\n",
        r"masks +2, 1 of them run lengths",
        r"keypoints +2: left_a, right_a",
        r"labeled +2 keypoints of 1 objects",
        r"for training +1 images with 2 objects",
        r"<box> +7 +2 +1 +1 +15 x 15",
        r"1 images without objects\n +.*002.png\n",
        r"Can be trained on, with",
    ):
        assert re.search(text, printed), text
    assert "&lt;box&gt;" in page and "<box>" not in page and "http" not in page
    (picture,) = pictures(page)
    is_drawn = (picture.astype(int).max(axis=2) - picture.min(axis=2)) > 60
    assert is_drawn.mean() > 0.001  # colored lines and masks on a black image


@pytest.mark.parametrize(
    "change, flags, message",
    [
        (set_at("images.0.width", -1), [], "image 1: width = -1"),
        (set_at("annotations.0.bbox", None), ["--no_images"], "annotation 1: bbox = None"),
        (set_at("annotations.0.image_id", 9), [], "annotation 1: image_id = 9"),
        (set_at("annotations.0.segmentation", []), ["--masks"], "no masks"),
        (set_at("images", []), ["--test"], "no images"),
        (set_at("categories", []), [], "no classes"),
        (set_at("images.0.file_name", "gone.png"), [], "cannot be decoded\n"),
    ],
)
def test_what_would_be_refused_is_told_and_exits_with_1(tmp_path, checked, change, flags, message):
    code, printed, page = checked(coco(tmp_path, [annotation(1, BOX)], change=change), *flags)
    assert code == 1 and message in printed and "Training would be refused." in printed
    assert "refused" in page


def test_images_that_a_finding_names_are_drawn(tmp_path, monkeypatch, checked):
    drawn = []

    def draw(axis, image, classes, boxes, **objects):
        drawn.append(boxes.tolist())

    monkeypatch.setattr(detection_check, "draw", draw)
    boxes = [(5 + i % 9, 5, 25, 25) for i in range(60)]
    boxes[37] = (20, 5, 70, 25)  # beyond its image
    records = [annotation(i, box) for i, box in enumerate(boxes, 1)]
    checked(coco(tmp_path, records, count=60), "--no_images")
    assert drawn[0] == [[20, 5, 70, 25]] and 10 < len(drawn) <= 12


def test_without_images_nothing_is_decoded(tmp_path, checked):
    address = coco(tmp_path, [annotation(1, BOX)], change=set_at("images.0.file_name", "gone.png"))
    code, _, _ = checked(address, "--no_images")
    assert code == 0


def test_an_address_that_cannot_be_is_a_message(tmp_path, checked):
    code, printed, page = checked(f"coco:{tmp_path},{tmp_path}/none.json")
    assert code == 1 and printed.startswith("check: The address must be coco:") and not page
    code, printed, _ = checked("nonsense:x")
    assert code == 1 and "yolo:DIR" in printed and "labelme:DIR" in printed


def test_label_maps_are_told_and_drawn(tmp_path, checked):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        Image.new("RGB", (50, 40)).save(tmp_path / "images" / f"{i}.png")
        label = np.zeros((40, 50), np.uint8)
        label[:, :10] = 1
        label[:, 10:20] = 255
        Image.fromarray(label).save(tmp_path / "labels" / f"{i}.png")
    address = f"folders:{tmp_path}/images,{tmp_path}/labels"
    code, printed, page = checked(address, "--num_classes=3")
    assert code == 0 and len(pictures(page)) == 2
    for text in (r"0 +0 +60.00% +2", r"1 +1 +20.00% +2", r"\(ignored\) +255 +20.00%"):
        assert re.search(text, printed), text
    assert "1 classes without a pixel\n      2\n" in printed
    code, printed, _ = checked(address)
    assert code == 1 and "--config.data.num_classes" in printed


def test_the_command_is_listed():
    assert "check" in listing.COMMANDS
    json.dumps(listing.COMMANDS)
