"""Annotations as people and tools write them: read, or refused by file, record, field and value."""

import logging

import pytest
from detection_sets import annotation
from home_made import BOX, coco, crowd, examined, messages, set_at

from moco_tf.data.findings import DROPPED, WARNING
from moco_tf.detection.data import problems
from moco_tf.detection.data.annotations import open_annotations
from moco_tf.detection.data.classes import match_classes


@pytest.mark.parametrize("training", [True, False])
def test_a_set_of_crowds_is_refused_with_counts(tmp_path, training):
    address = coco(tmp_path, [crowd(1), crowd(2)])
    with pytest.raises(ValueError, match=r"2 objects, 2 of them crowds.*CVAT writes iscrowd=1"):
        open_annotations(address, training=training, masks=True)
    address = coco(tmp_path, [crowd(1), crowd(2), annotation(1, BOX)])
    assert examined(address, training).findings.count(problems.MANY_CROWDS) == 2


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("categories", [], "no classes (SET: categories = [])"),
        ("images", [], "no images (SET: images = [])"),
        ("images.1.width", None, "SET, image 2: width = None"),
        ("images.1.width", -1, "SET, image 2: width = -1"),
        ("images.1.height", 0, "SET, image 2: height = 0"),
        ("images.1.height", "remove", "SET, image 2: height = 'missing'"),
        ("images.1.id", None, "SET, image None: id = None"),
        ("images.1.file_name", "remove", "SET, image 2: file_name = 'missing'"),
        ("images.1.file_name", "../x.png", "outside their folder (SET, image 2: file_name"),
        ("annotations.1.category_id", None, "SET, annotation 2: category_id = None"),
        ("annotations.1.category_id", "remove", "SET, annotation 2: category_id = 'missing'"),
        ("annotations.1.image_id", "remove", "SET, annotation 2: image_id = 'missing'"),
        ("annotations.1.bbox", None, "SET, annotation 2: bbox = None"),
        ("annotations.1.bbox", "remove", "SET, annotation 2: bbox = 'missing'"),
        ("annotations.1.area", "big", "SET, annotation 2: area = 'big'"),
        ("annotations.1.iscrowd", "0", "SET, annotation 2: iscrowd = '0'"),
        ("categories.0.name", None, "SET, category 7: name = None"),
        ("categories.0.id", "cat", "SET, category 'cat': id = 'cat'"),
        ("images.1.id", 1, "images with the id of another image (SET, image 1: file_name"),
    ],
)
def test_an_unusable_field_is_named(tmp_path, path, value, message):
    records = [annotation(1, BOX), annotation(2, BOX)]
    address = coco(tmp_path, records, change=set_at(path, value))
    for training in (True, False):
        lines = "\n".join(messages(address, training=training))
        # One message for one mistake; objects that refer to a changed id are another.
        assert lines.count("\n") == 0 or path.endswith(".id")
        assert message.replace("SET", f"{tmp_path}/set/set.json") in lines


@pytest.mark.parametrize("field", ["images", "categories"])
@pytest.mark.parametrize("value", ["remove", None])
def test_a_missing_list_is_named(tmp_path, field, value):
    address = coco(tmp_path, [annotation(1, BOX)], change=set_at(field, value))
    expected = f"no field {field}" if value == "remove" else f"{field} = None"
    with pytest.raises(ValueError, match=f"must be COCO's JSON.*{expected}"):
        examined(address)


def test_half_of_the_objects_without_a_class_are_counted(tmp_path):
    records = [annotation(1 + i % 2, (i, 5, i + 20, 20)) for i in range(10)]

    def change(content):
        for record in content["annotations"][::2]:
            del record["category_id"]

    (line,) = messages(coco(tmp_path, records, change=change))
    assert line.startswith("refused: 5 objects with a missing or unusable field")
    assert "annotation 1: category_id" in line and "5 in all" in line


def test_sizes_as_text_are_read(tmp_path):
    def change(content):
        for image in content["images"]:
            image |= {"width": "50", "height": 40.0}

    annotations = open_annotations(
        coco(tmp_path, [annotation(1, BOX)], change=change), training=True
    )
    assert annotations.sizes.tolist() == [[40, 50]]


CLASSES = [{"id": 0, "name": "cells"}, {"id": 3, "name": "red"}, {"id": 7, "name": "white"}]


def test_the_root_class_of_roboflow_is_an_unused_one(tmp_path):
    """Ids from 0 with gaps, and a class of which nothing is."""
    records = [annotation(1, BOX, 3), annotation(2, BOX, 7)]
    examination = examined(coco(tmp_path, records, categories=CLASSES))
    annotations = examination.annotations
    assert annotations.classes == ("cells", "red", "white")
    assert annotations.category_ids.tolist() == [0, 3, 7] and annotations.labels.tolist() == [1, 2]
    assert examination.findings.shown(problems.UNUSED_CLASS)[0].value == "cells"


@pytest.mark.parametrize("training", [True, False])
def test_a_class_id_that_comes_twice_is_refused(tmp_path, training):
    classes = [*CLASSES, {"id": 3, "name": "blue"}]
    address = coco(tmp_path, [annotation(1, BOX, 3)], categories=classes)
    (line,) = messages(address, training=training)
    assert "classes with the id of another class" in line and "category 3: name = 'blue'" in line


def test_names_that_come_twice_are_told_apart(tmp_path):
    classes = [*CLASSES, {"id": 9, "name": "red"}, {"id": 11, "name": "White "}]
    examination = examined(coco(tmp_path, [annotation(1, BOX, 9)], categories=classes))
    assert examination.annotations.classes[3] == "red (id 9)"
    assert examination.findings.count(problems.SAME_NAME) == 1
    assert "'white' and 'White '" in examination.findings.describe(problems.SIMILAR_CLASSES)


def opened_pair(tmp_path, test_classes, category):
    for name in ("train", "test"):
        (tmp_path / name).mkdir(exist_ok=True)
    records = [annotation(1, BOX, 3), annotation(2, BOX, 7)]
    train = open_annotations(coco(tmp_path / "train", records, categories=CLASSES), training=True)
    records = [annotation(1, BOX, category)]
    address = coco(tmp_path / "test", records, categories=test_classes)
    return train, open_annotations(address, training=False)


def test_a_test_set_may_lack_classes_and_keeps_its_ids(tmp_path):
    train, test = opened_pair(tmp_path, [{"id": 3, "name": "white"}], 3)
    test = match_classes(test, train)
    assert test.classes == train.classes and test.labels.tolist() == [2]
    ids = test.category_ids.tolist()
    assert ids[2] == 3 and ids[0] == 0 and len(set(ids)) == 3  # 3 is taken by white
    train, test = opened_pair(tmp_path, [{"id": 1, "name": "green"}], 1)
    with pytest.raises(ValueError, match="objects of green .1 classes., where the training"):
        match_classes(test, train)
    extra = [{"id": 1, "name": "green"}, {"id": 2, "name": "red"}]
    assert match_classes(opened_pair(tmp_path, extra, 2)[1], train).labels.tolist() == [1]


@pytest.mark.parametrize(
    "convert, warned",
    [
        (str, False),
        (lambda i: f"img_{i}", False),
        (float, False),
        (lambda i: str(i) if i == 1 else i, False),
    ],
)
def test_ids_as_text_and_floats_are_read(tmp_path, convert, warned):
    def change(content):
        for image in content["images"]:
            image["id"] = convert(image["id"])
        for record in content["annotations"]:
            record["image_id"] = convert(record["image_id"])
            record["id"] = 0  # all equal, from 0

    records = [annotation(2, BOX), annotation(1, (8, 8, 20, 20))]
    examination = examined(coco(tmp_path, records, change=change), training=False)
    assert examination.annotations.boxes[:, 0].tolist() == [8, 5]
    assert bool(examination.findings.kinds(WARNING)) == warned


def test_ids_that_are_text_in_one_place_are_matched_and_said(tmp_path):
    address = coco(tmp_path, [annotation(1, BOX)], change=set_at("annotations.0.image_id", "1"))
    examination = examined(address)
    assert examination.annotations.num_examples == 1
    assert examination.findings.count(problems.TEXT_IDS) == 1


def test_images_without_objects_stay_if_wanted(tmp_path):
    records = [annotation(1, BOX), crowd(3)]
    address = coco(tmp_path, records, count=4)
    dropped = examined(address)
    assert dropped.findings.count(problems.EMPTY) == 2
    assert dropped.findings.count(problems.NOTHING_LEFT) == 1  # what has a crowd is no negative
    assert dropped.annotations.ids == (1,)
    kept = examined(address, keep_empty=True)
    assert kept.annotations.ids == (1, 2, 4) and kept.annotations.counts.tolist() == [1, 0, 0]
    assert kept.findings.count(problems.KEPT_EMPTY) == 2


def test_nothing_is_dropped_without_being_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO, "moco_tf")
    records = [annotation(1, BOX), annotation(1, (5, 5, 5.5, 20)), annotation(2, (9, 9, 9, 9))]
    records += [annotation(3, BOX, segmentation=[]), crowd(4)]
    address = coco(tmp_path, records, count=5)
    findings = examined(address, masks=True).findings
    counts = {kind: findings.count(kind) for kind in findings.kinds(DROPPED)}
    images = counts[problems.EMPTY] + counts[problems.NOTHING_LEFT]
    objects = counts[problems.SMALL] + counts[problems.NO_MASK]
    annotations = open_annotations(address, training=True, masks=True)
    assert images == 5 - annotations.num_examples
    assert objects == len(records) - len(annotations.boxes) - 1  # a crowd alone goes with its image
    assert all(kind.what in caplog.messages[-1] for kind in counts)


def test_copies_are_warned_of(tmp_path):
    findings = examined(coco(tmp_path, [annotation(1, BOX)] * 3)).findings
    assert findings.count(problems.TWICE) == 2
