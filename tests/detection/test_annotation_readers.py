"""Annotation files: what is read, dropped and refused, against the files themselves."""

import json
import logging
import re

import numpy as np
import pytest
import tiny
from detection_sets import BCCD, COCO, NAMES, PERSONS, annotation, raw, tiny_coco, write_coco
from PIL import Image
from pycocotools import mask as coco_mask

from moco_tf.detection.data.annotations import check, open_annotations

needs_coco = pytest.mark.skipif(not COCO.exists(), reason="needs tiny_coco beside the project")


def objects_of(annotations, image):
    return slice(*annotations.offsets[image : image + 2])


@needs_coco
@pytest.mark.parametrize("training", [True, False])
def test_tiny_coco_is_its_json(training):
    content = raw("train")
    annotations = open_annotations(tiny_coco("train"), training=training)
    numbers = sorted(c["id"] for c in content["categories"])
    of_image = {i["id"]: [] for i in content["images"]}
    for a in content["annotations"]:
        of_image[a["image_id"]].append(a)
    of_file = {i["id"]: i for i in content["images"] if of_image[i["id"]] or not training}
    assert len(annotations.classes) == 80 and annotations.category_ids.tolist() == numbers
    assert annotations.ids == tuple(of_file) and len(annotations.boxes) == 470
    for i, number in enumerate(annotations.ids):
        record, want, rows = of_file[number], of_image[number], objects_of(annotations, i)
        assert annotations.images[i].endswith(record["file_name"])
        assert annotations.sizes[i].tolist() == [record["height"], record["width"]]
        boxes = np.reshape([a["bbox"] for a in want], (-1, 4))
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(annotations.boxes[rows], boxes, atol=1e-3)
        assert annotations.labels[rows].tolist() == [numbers.index(a["category_id"]) for a in want]
        assert annotations.crowd[rows].tolist() == [a["iscrowd"] for a in want]
        assert annotations.area[rows].tolist() == [a["area"] for a in want]
    assert annotations.masks is None and annotations.rles is None and annotations.keypoints is None
    check(annotations, "tiny_coco", quiet=True)


@needs_coco
@pytest.mark.parametrize("folder, images, persons", [(COCO, 25, 57), (PERSONS, None, 12)])
def test_keypoints_are_continuous_and_know_their_mirror_images(folder, images, persons):
    address = tiny_coco("train", "person_keypoints")
    if folder == PERSONS:
        address = f"coco:{PERSONS}/images,{PERSONS}/annotations/person_keypoints_mini.json"
    annotations = open_annotations(address, training=True, keypoints=True)
    assert annotations.classes == ("person",) and annotations.keypoints.shape[1:] == (17, 3)
    assert images is None or annotations.num_examples == images
    seen = annotations.keypoints[..., 2] > 0
    assert (seen.any(axis=1) & ~annotations.crowd).sum() == persons
    assert (annotations.keypoints[seen][:, :2] % 1 == 0.5).all()
    assert not annotations.keypoints[~seen].any()
    names, mirrored = annotations.keypoint_names, annotations.mirrored_keypoints
    twins = {names[i]: names[j] for i, j in enumerate(mirrored)}
    assert twins["left_eye"] == "right_eye" and twins["right_ankle"] == "left_ankle"
    assert twins["nose"] == "nose" and (mirrored[mirrored] == range(17)).all()


def test_what_is_dropped_to_train_on_is_said(tmp_path, caplog):
    caplog.set_level(logging.INFO, "moco_tf")
    rle = {"size": [40, 50], "counts": [0, 40 * 10, 40 * 40]}
    records = [
        annotation(3, (5, 5, 20, 20)),
        annotation(1, (10, 10, 60, 30)),  # beyond the image, 50 px wide
        annotation(1, (10, 10, 10.5, 30)),
        annotation(1, (55, 10, 60, 30)),
        annotation(2, (0, 0, 10, 40), iscrowd=1, segmentation=rle),
        annotation(3, (8, 8, 30, 30), segmentation=[[1, 2, 3, 4]]),
    ]
    address = write_coco(tmp_path / "set", [(40, 50)] * 4, records)
    annotations = open_annotations(address, training=True)
    assert annotations.ids == (1, 3) and annotations.offsets.tolist() == [0, 1, 3]
    assert annotations.boxes.tolist() == [[10, 10, 50, 30], [5, 5, 20, 20], [8, 8, 30, 30]]
    assert caplog.messages[-1].endswith(
        "2 images with 3 objects; 2 boxes at most 1 px wide or high dropped; 1 images without "
        "objects dropped; 1 images without an object to train on dropped"
    )
    annotations = open_annotations(address, training=True, masks=True)
    assert len(annotations.boxes) == 2 and "1 objects without a mask dropped" in caplog.messages[-1]
    annotations = open_annotations(address, training=False, masks=True)  # all as it is in the file
    assert annotations.ids == (1, 2, 3, 4) and annotations.counts.tolist() == [3, 1, 2, 0]
    assert annotations.boxes[0].tolist() == [10, 10, 60, 30] and annotations.crowd.sum() == 1
    assert coco_mask.area(list(annotations.rles)).tolist() == [800, 20, 0, 400, 225, 0]


def test_persons_without_keypoints_stay_boxes(tmp_path):
    person = {"id": 7, "name": "person", "keypoints": NAMES}
    labelled, bare = [3, 4, 2, 0, 0, 0, 8, 9, 1], [0] * 9
    records = [
        annotation(1, (0, 0, 20, 20), keypoints=labelled),
        annotation(1, (20, 0, 40, 20), keypoints=bare),
        annotation(1, (20, 0, 40, 20), category=9),
        annotation(2, (0, 0, 20, 20), keypoints=bare),
    ]
    categories = ({"id": 9, "name": "car"}, person)
    address = write_coco(tmp_path / "set", [(40, 50)] * 2, records, categories)
    annotations = open_annotations(address, training=True, keypoints=True)
    assert annotations.ids == (1,) and annotations.classes == ("person",)
    assert annotations.labels.tolist() == [0, 0]
    assert annotations.keypoints.tolist() == [
        [[3.5, 4.5, 2], [0, 0, 0], [8.5, 9.5, 1]],
        [[0, 0, 0]] * 3,
    ]
    assert annotations.mirrored_keypoints.tolist() == [0, 2, 1]
    records[0]["keypoints"] = labelled[:6]
    address = write_coco(tmp_path / "set", [(40, 50)] * 2, records, categories)
    with pytest.raises(ValueError, match="annotation 1: keypoints = .6 numbers, not 9"):
        open_annotations(address, training=True, keypoints=True)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"image_id": 9}, r"1 objects whose image_id is no image.*annotation 1: image_id = 9"),
        ({"category_id": 1}, r"1 objects whose class is none.*category_id = 1"),
        ({"bbox": [1, 2, 3]}, r"annotation 1: bbox = \[1, 2, 3\].*x, y, width, height"),
        ({"bbox": [1, 2, "3", 4]}, "not four finite numbers .*annotation 1: bbox"),
        ({"bbox": [1, 2, float("nan"), 4]}, "not four finite numbers .*annotation 1: bbox"),
        ({"segmentation": [["a"] * 6]}, "neither polygons nor COCO's run .*annotation 1: segm"),
        ({"segmentation": None}, "no masks .*1 objects; 1 objects without a mask drop"),
    ],
)
def test_broken_annotations_are_named(tmp_path, change, message):
    records = [annotation(1, (5, 5, 20, 20), **change)]
    address = write_coco(tmp_path / "set", [(40, 50)], [])
    content = json.loads((tmp_path / "set" / "set.json").read_text())
    content["annotations"] = [{"id": 1, **records[0]}]
    (tmp_path / "set" / "set.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        open_annotations(address, training=True, masks=True)


def test_broken_files_are_named(tmp_path):
    address = write_coco(tmp_path / "set", [(40, 50)], [annotation(1, (5, 5, 20, 20))])
    with pytest.raises(ValueError, match="must be one of .*cityscapes:DIR:SPLIT, coco:IMAGES_DIR"):
        open_annotations("nonsense:x", training=True)
    with pytest.raises(ValueError, match="must be coco:IMAGES_DIR,JSON, a folder and a file that"):
        open_annotations(address + "x", training=True)
    annotations = open_annotations(address, training=True)
    image, file = tmp_path / "set" / "001.png", tmp_path / "set" / "set.json"
    Image.new("RGB", (10, 20)).save(image)
    with pytest.raises(ValueError, match=r"001.png: \[20 10\] px, annotated \[40 50\] px\)"):
        check(annotations, address, quiet=True)
    image.write_bytes(b"no")
    with pytest.raises(ValueError, match="missing or cannot be decoded .*001.png"):
        check(annotations, address, quiet=True)
    text = file.read_text()
    for broken in (text[:-9], text.replace("images", "pictures"), "[]"):
        file.write_text(broken)
        with pytest.raises(ValueError, match="must be COCO's JSON.*set.json.*Download it again"):
            open_annotations(address, training=True)


def write_voc(root, split, objects):
    """Writes images of 30 x 40 px; `objects` is a dict of name: [(class, difficult, ends)]."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, several in objects.items():
        xml = "".join(
            f"<object><name>{c}</name><difficult>{d}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}"
            f"</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for c, d, (x1, y1, x2, y2) in several
        )
        size = "<size><width>40</width><height>30</height></size>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<a>{size}{xml}</a>")
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(objects) + "\n")


def test_voc_counts_pixels_from_one(tmp_path):
    write_voc(tmp_path / "a", "trainval", {"000001": [("dog", 0, (1, 1, 40, 30))], "000002": []})
    objects = [("cat", 1, (3, 4, 5.5, 6)), ("dog", 0, (7, 7, 7, 7))]
    write_voc(tmp_path / "b", "trainval", {"2007_1": objects})
    address = f"voc:{tmp_path}/a:trainval+{tmp_path}/b:trainval"
    annotations = open_annotations(address, training=False)
    assert annotations.ids == ("000001", "000002", "2007_1")
    assert annotations.counts.tolist() == [1, 0, 2]
    assert annotations.images[2] == f"{tmp_path}/b/JPEGImages/2007_1.jpg"
    assert annotations.boxes.tolist() == [[0, 0, 40, 30], [2, 3, 5.5, 6], [6, 6, 7, 7]]
    assert len(annotations.classes) == 20
    assert [annotations.classes[i] for i in annotations.labels] == ["dog", "cat", "dog"]
    assert annotations.difficult.tolist() == [False, True, False] and not annotations.crowd.any()
    assert (annotations.sizes == [30, 40]).all()
    assert open_annotations(address, training=True).counts.tolist() == [1, 1]
    write_voc(tmp_path / "b", "val", {"2007_2": [("unicorn", 0, (1, 1, 9, 9))]})
    annotations = open_annotations(f"voc:{tmp_path}/b:val", training=False)
    assert annotations.classes == ("cat", "dog", "unicorn")  # of all splits, so that they agree
    (tmp_path / "b" / "Annotations" / "2007_2.xml").write_text("<a></a>")
    with pytest.raises(ValueError, match="2007_2.xml: must be VOC's XML"):
        open_annotations(f"voc:{tmp_path}/b:val", training=False)
    (tmp_path / "b" / "Annotations" / "2007_2.xml").unlink()
    with pytest.raises(ValueError, match="without an annotation file .*2007_2.xml"):
        open_annotations(f"voc:{tmp_path}/b:val", training=False)
    with pytest.raises(ValueError, match="ImageSets/Main/SPLIT.txt exists"):
        open_annotations(f"voc:{tmp_path}/b:test", training=False)
    with pytest.raises(ValueError, match="no masks of all objects"):
        open_annotations(address, training=True, masks=True)
    with pytest.raises(ValueError, match="2 images with the id of another"):
        open_annotations(f"voc:{tmp_path}/a:trainval+{tmp_path}/a:trainval", training=True)


@pytest.mark.skipif(not BCCD.exists(), reason="needs bccd_voc beside the project")
def test_bccd_is_read():
    address = f"voc:{BCCD}:trainval+{BCCD}:test"
    annotations = open_annotations(address, training=False)
    assert annotations.num_examples == 292 + 72
    assert annotations.classes == ("Platelets", "RBC", "WBC")
    assert np.bincount(annotations.labels).tolist() == [361, 4155, 372]
    trained = open_annotations(address, training=True)
    assert len(trained.boxes) == len(annotations.boxes) - 2  # two are points


@pytest.mark.parametrize("folder", ["train2017", ""])
@pytest.mark.parametrize("version", ["v0.5", "v1"])
def test_lvis_names_its_images_in_its_own_way(tmp_path, version, folder):
    address = write_coco(tmp_path / "set", [(40, 50)], [annotation(1, (5, 5, 20, 20))])
    file = tmp_path / "set" / "set.json"
    content = json.loads(file.read_text())
    (image,) = content["images"]
    name = "000000000009.jpg"
    image["file_name"] = f"COCO_val2014_{name}"
    if version == "v1":
        del image["file_name"]
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{name}"
    file.write_text(json.dumps(content))
    (tmp_path / "set" / folder).mkdir(exist_ok=True)
    annotations = open_annotations(address.replace("coco:", "lvis:", 1), training=True, masks=True)
    want = tmp_path / "set" / folder / name
    assert annotations.images == (str(want),) and annotations.source == str(file)


def test_cityscapes_instances_are_what_remains_to_be_seen(tmp_path):
    def square(label, left, top, side, **more):
        right, bottom = left + side - 1, top + side - 1  # numbers of pixels
        ends = [[left, top], [right, top], [right, bottom], [left, bottom]]
        return {"label": label, "polygon": ends, **more}

    drawn = [
        square("road", 0, 0, 60),
        square("car", 10, 10, 20),
        square("person", 20, 5, 31),
        square("license plate", 12, 12, 4),
        square("cargroup", 0, 40, 12),
        square("car", 30, 30, 8, deleted=1),
        square("pole", 10, 10, 3),
        square("rider", 10, 10, 2),
        square("sky", 10, 10, 2),
    ]
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / folder / "val" / "town").mkdir(parents=True)
    Image.new("RGB", (80, 60)).save(tmp_path / "leftImg8bit/val/town/town_0_1_leftImg8bit.png")
    file = tmp_path / "gtFine/val/town/town_0_1_gtFine_polygons.json"
    file.write_text(json.dumps({"imgHeight": 60, "imgWidth": 80, "objects": drawn}))
    annotations = open_annotations(f"cityscapes:{tmp_path}:val", training=False, masks=True)
    assert annotations.ids == ("town_0_1",) and len(annotations.classes) == 8
    assert [annotations.classes[i] for i in annotations.labels] == ["car", "person", "car"]
    assert annotations.crowd.tolist() == [False, False, True]
    (car, person, group) = coco_mask.decode(list(annotations.rles)).transpose(2, 0, 1)
    # A square of 20 px is drawn 19 or 20 px wide, from centre to centre of its corners.
    np.testing.assert_allclose(annotations.boxes[0], [10, 10, 20, 30], atol=1)
    assert car[15:28, 11:19].all() and not car[10:12, 10:12].any() and not car[:, 21:].any()
    assert person[8:33, 22:48].all() and group[42:50, 2:10].all()
    np.testing.assert_allclose(annotations.area, [m.sum() for m in (car, person, group)])
    trained = open_annotations(f"cityscapes:{tmp_path}:val", training=True, masks=True)
    assert [len(m) > 0 for m in trained.masks] == [True, True, False]
    file.write_text("{}")
    with pytest.raises(ValueError, match="must have Cityscapes' polygons.*polygons.json"):
        open_annotations(f"cityscapes:{tmp_path}:val", training=False)
    with pytest.raises(ValueError, match="leftImg8bit/SPLIT has images"):
        open_annotations(f"cityscapes:{tmp_path}:test", training=False)


def test_a_reader_from_outside_is_found_by_its_import_path(tmp_path, monkeypatch):
    """The module of CONTRIBUTING.md, on two images of 40 x 20 px."""
    text = (tiny.ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(# my_yolo.py.*?)```", text, re.DOTALL)
    (tmp_path / "my_yolo.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for name, lines in (("a", "0 0.5 0.5 0.5 0.5\n1 0.25 0.5 0.1 0.2\n"), ("b", "")):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(lines)
    annotations = open_annotations(f"my_yolo:{tmp_path}", training=False)
    assert annotations.images == (f"{tmp_path}/a.png", f"{tmp_path}/b.png")
    assert annotations.classes == ("cat", "dog") and annotations.labels.tolist() == [0, 1]
    assert annotations.counts.tolist() == [2, 0]
    np.testing.assert_allclose(annotations.boxes, [[10, 5, 30, 15], [8, 8, 12, 12]])
    check(annotations, "my_yolo", quiet=True)
    assert open_annotations(f"my_yolo:{tmp_path}", training=True).num_examples == 1
    with pytest.raises(ValueError, match="my_yolo has boxes only"):
        open_annotations(f"my_yolo:{tmp_path}", training=True, masks=True)
