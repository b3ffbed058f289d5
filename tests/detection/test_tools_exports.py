"""Exports of labelling tools are read, or refused in one message that names file and place."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tool_exports import (
    BOXES,
    CAT,
    CENTER,
    MASKS,
    TRIANGLE,
    H,
    W,
    labelme,
    labelme_file,
    roboflow_yolo,
    shape,
    via_coco,
    write,
)

from moco_tf.data.findings import REFUSED, WARNING
from moco_tf.detection.data import problems, yolo_names
from moco_tf.detection.data.annotations import examine, open_annotations


@pytest.mark.parametrize("export", [*BOXES, *MASKS])
def test_an_export_is_read(export, tmp_path):
    examination = examine(export(tmp_path), training=False, masks=export in MASKS)
    annotations, findings = examination.annotations, examination.findings
    warned = {problems.TEXT_IDS} if export is via_coco else set()
    assert set(findings.kinds(REFUSED, WARNING)) == warned
    assert annotations.num_examples == 2 and annotations.counts.tolist() == [1, 0]
    assert annotations.sizes.tolist() == [[H, W]] * 2
    assert annotations.classes[annotations.labels[0]] == "cat"
    np.testing.assert_allclose(annotations.boxes, [CAT], atol=1e-3)
    assert all(Image.open(path).size == (W, H) for path in annotations.images)
    if export in MASKS:
        drawn = coco_mask.frPyObjects([TRIANGLE], H, W)
        shared = coco_mask.iou([annotations.rles[0]], drawn, [0])
        assert shared.item() > 0.95
    kept = examine(export(tmp_path), training=True, masks=export in MASKS)
    assert kept.annotations.num_examples == 1
    assert kept.findings.count(problems.EMPTY) == 1


def via_2(content):
    """VIA before 2.0.9: ids from 0, as text in objects, and polygons as flat lists."""
    for image in content["images"]:
        image["id"] -= 1
    content["annotations"][0] |= {"id": 0, "image_id": "0", "segmentation": TRIANGLE}


def via_3(content):
    """VIA 3 does not know the sizes of images; iscrowd is a bool."""
    for image in content["images"]:
        image |= {"width": -1, "height": -1}
    content["annotations"][0]["iscrowd"] = False


@pytest.mark.parametrize(
    "change, kind, message",
    [
        (via_2, problems.BAD_MASK, "annotation 0: segmentation has .* a list of polygons"),
        (via_3, problems.BAD_IMAGE, "image 1: height = -1; image 1: width = -1; .* 4 in all"),
    ],
)
def test_an_export_that_cannot_be_used_is_refused_in_one_message(change, kind, message, tmp_path):
    address = via_coco(tmp_path)
    file = tmp_path / "via_export_coco.json"
    content = json.loads(file.read_text())
    change(content)
    write(file, content)
    findings = examine(address, training=True, masks=True).findings
    assert findings.kinds(REFUSED) == [kind] and re.search(message, findings.describe(kind))


VIA = {"a.png1": {"filename": "a.png", "size": 1, "regions": [], "file_attributes": {}}}
STUDIO = [{"id": 1, "data": {"image": "a.png"}, "annotations": [{"result": []}]}]
CVAT_XML = "<annotations><version>1.1</version><image id='0' name='a.png'/></annotations>"


@pytest.mark.parametrize(
    "content, message",
    [
        (VIA, "It looks like VIA's own JSON: use Annotation > Export .COCO format"),
        ({"_via_settings": {}, "_via_img_metadata": VIA}, "It looks like a project of VIA"),
        (STUDIO, "It looks like Label Studio's own JSON: export as COCO"),
        ([{"image": "a.png", "annotations": [{"label": "cat"}]}], "It looks like CreateML's JSON"),
        (labelme_file("a.png", []), "It looks like labelme's: use labelme:DIR"),
        ([], "must be COCO's JSON"),
        ("", "must be COCO's JSON"),
        (None, "must be COCO's JSON"),
    ],
)
def test_a_tools_own_json_is_refused_by_name(content, message, tmp_path):
    write(tmp_path / "x.json", json.dumps(content))
    with pytest.raises(ValueError, match=message):
        open_annotations(f"coco:{tmp_path},{tmp_path}/x.json", training=True)


def test_cvats_own_xml_is_refused_by_name(tmp_path):
    write(tmp_path / "annotations.xml", CVAT_XML)
    with pytest.raises(ValueError, match="annotations.xml: must be VOC's XML, .*CVAT's own XML"):
        open_annotations(f"voc:{tmp_path}", training=True)


@pytest.mark.parametrize(
    "line, kind",
    [
        ("0 0.3 0.5 0.4", problems.BAD_LINE),
        ("0 0.3 0.5 0.4 nan", problems.BAD_LINE),
        ("cat 0.3 0.5 0.4 0.5", problems.BAD_LINE),
        ("0 0.3 0.5 0.4 0.5 0.9", problems.BAD_LINE),  # a prediction with its confidence
        ("2 0.3 0.5 0.4 0.5", problems.UNKNOWN_CLASS),
        ("-1 0.3 0.5 0.4 0.5", problems.UNKNOWN_CLASS),
        ("0 15 20 20 20", problems.NO_SHARES),
    ],
)
def test_a_line_of_yolo_that_cannot_be_is_named(line, kind, tmp_path):
    address = roboflow_yolo(tmp_path, CENTER + line)
    findings = examine(address, training=True).findings
    assert findings.kinds(REFUSED) == [kind]
    assert f"{tmp_path}/train/labels/a.txt, line 2" in findings.describe(kind)


def test_files_of_yolo_without_their_image_or_names_are_named(tmp_path):
    address = roboflow_yolo(tmp_path, CENTER)
    write(tmp_path / "train" / "labels" / "c.txt", CENTER)
    (tmp_path / "train" / "images" / "b.png").write_bytes(b"no image")
    findings = examine(address, training=True).findings
    assert set(findings.kinds(REFUSED)) == {problems.NO_IMAGE_FILE, problems.UNREADABLE}
    (tmp_path / "data.yaml").write_text("nc: 2\n")
    with pytest.raises(ValueError, match="must have names.*data.yaml"):
        open_annotations(address, training=True)
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(ValueError, match="named by data.yaml, .* Write one name a line"):
        open_annotations(address, training=True)
    with pytest.raises(ValueError, match="images/ and labels/.*without images"):
        open_annotations(f"yolo:{tmp_path}/none", training=True)
    with pytest.raises(ValueError, match="no keypoints"):
        open_annotations(address, training=True, keypoints=True)


@pytest.mark.parametrize(
    "text, names",
    [
        ("names: ['cat', 'dog']", ("cat", "dog")),
        ('names: ["a, b", "it\'s", c d]  # three', ("a, b", "it's", "c d")),
        ("names:\n  - cat\n  - 'dog'\nnc: 2", ("cat", "dog")),
        ("names:\n- cat\n- dog\nnc: 2", ("cat", "dog")),
        ("nc: 2\nnames:\n  0: cat\n  1: big dog\n\ndownload: x", ("cat", "big dog")),
        ("names: {0: cat, 1: dog}", ("cat", "dog")),
        ("names: [\n  cat,\n  dog\n]\nval: x", ("cat", "dog")),
    ],
)
def test_names_of_data_yaml(text, names, tmp_path):
    write(tmp_path / "data.yaml", f"path: ../x\n{text}\n")
    assert yolo_names.find(str(tmp_path), "yolo:x").classes == names


def test_keypoints_after_yolos_boxes_are_left_out(tmp_path):
    address = roboflow_yolo(tmp_path, CENTER.strip() + " 0.1 0.2 2 0.3 0.4 2\n")
    with (tmp_path / "data.yaml").open("a") as file:
        file.write("kpt_shape: [2, 3]\n")
    annotations = open_annotations(address, training=True)
    np.testing.assert_allclose(annotations.boxes, [CAT], atol=1e-3)


def png(mask):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_all_shapes_of_labelme(tmp_path):
    mask = np.zeros((10, 8), bool)
    mask[2:, 3:] = True
    shapes = [
        shape("rectangle", [[30, 30], [20, 12]]),  # corners in any order
        shape("circle", [[20, 20], [20, 26]], "dog"),
        shape("mask", [[10, 5], [17, 14]], "dog", mask=png(mask)),
        shape("polygon", [[1, 1], [5, 1], [5, 5]], group=4),
        shape("polygon", [[11, 1], [15, 1], [15, 5]], group=4),  # the same cat
        shape("point", [[3, 3]], "nose"),
        shape("line", [[3, 3], [5, 9]], "nose"),
        shape("polygon", [[3, 3], [5, 9]]),
        shape("polygon", [[1, 1], [5, 1], [5, 5]], "__ignore__"),
    ]
    examination = examine(labelme(tmp_path, shapes), training=False, masks=True)
    annotations, findings = examination.annotations, examination.findings
    assert annotations.classes == ("cat", "dog")
    boxes = [[20, 12, 30, 30], [14, 14, 26, 26], [13, 7, 18, 15], [1, 1, 15, 5]]
    np.testing.assert_allclose(annotations.boxes, boxes)
    areas = coco_mask.area(list(annotations.rles))
    assert areas[2] == mask.sum() and 100 < areas[1] < np.pi * 36 and areas[3] < 4 * 14
    counts = [(problems.OTHER_SHAPE, 2), (problems.SHORT_POLYGON, 1), (problems.IGNORED_LABEL, 1)]
    assert [findings.count(kind) for kind, _ in counts] == [count for _, count in counts]
    assert "shape 6: shape_type = 'point'" in findings.describe(problems.OTHER_SHAPE)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"imageHeight": None}, "a.json: imageHeight, imageWidth = .None, 50."),
        ({"shapes": None}, "shapes must be a list"),
        ({"imagePath": "gone.png"}, "without their image .*a.json: imagePath = 'gone.png'"),
        ({"shapes": [{"label": "cat"}]}, "a.json, shape 1: KeyError: 'points'"),
        ({"shapes": [shape("rectangle", [[1, 2]])]}, "a rectangle has 2 points, not 1"),
        ({"shapes": [shape("mask", [[0, 0], [9, 9]], mask="?")]}, "shape 1: Error"),
        ({"shapes": [shape("mask", [[49, 0]], mask=png(np.ones((9, 9), bool)))]}, "leaves the"),
    ],
)
def test_a_file_of_labelme_that_cannot_be_is_named(change, message, tmp_path):
    address = labelme(tmp_path)
    write(tmp_path / "a.json", labelme_file("a.png", [shape("circle", [[9, 9], [9, 5]])]) | change)
    with pytest.raises(ValueError, match=message):
        open_annotations(address, training=True)
