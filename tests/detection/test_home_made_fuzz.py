"""Any value of an annotation file may be junk: the check tells it and never dies of it."""

import copy
import json
import random

import pytest
import tool_exports
from detection_sets import annotation
from home_made import BOX, coco, full_rle
from tool_exports import labelme, labelme_file, shape

from moco_tf.data.findings import REFUSED
from moco_tf.detection.data.annotations import examine

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # NumPy's, of junk

JUNK = [None, -1, 0, 7, 1.5, 1e300, float("nan"), "", "x", "7", [], [[]], [None], [1, 2], {}, True]
FLAGS = [
    {"training": training, "masks": masks, "keypoints": keypoints}
    for training in (True, False)
    for masks in (True, False)
    for keypoints in (True, False)
]


def places(content, path=()):
    """Paths of all values in nested lists and dicts."""
    items = enumerate(content) if isinstance(content, list) else content.items()
    for key, value in items:
        yield (*path, key)
        if isinstance(value, (list, dict)):
            yield from places(value, (*path, key))


def mutated(content, rng):
    """A copy of a JSON's content in which one value is junk or missing."""
    content = copy.deepcopy(content)
    *parents, last = rng.choice([*places(content)])
    holder = content
    for key in parents:
        holder = holder[key]
    if rng.random() < 0.2:
        del holder[last]
    else:
        holder[last] = rng.choice(JUNK)
    return content


def outcome(address, **options):
    """ "read", "refused", or the message of a ValueError; another error fails the test."""
    try:
        examination = examine(address, **options)
    except ValueError as error:
        message = str(error)
        assert "Received" in message, message
        return message
    findings = examination.findings
    assert all(findings.lines())
    assert (examination.annotations is None) == bool(findings.kinds(REFUSED))
    return "refused" if findings.kinds(REFUSED) else "read"


@pytest.mark.parametrize("seed", range(4))
def test_any_value_of_cocos_json_may_be_junk(tmp_path, seed):
    points = [6, 6, 2, 19, 19, 2]
    records = [
        annotation(1, BOX, keypoints=points),
        annotation(2, BOX, keypoints=points, segmentation=full_rle((40, 50))),
        annotation(2, (8, 8, 30, 30), keypoints=points, iscrowd=1),
    ]
    classes = [{"id": 7, "name": "a", "keypoints": ["left_b", "right_b"]}, {"id": 9, "name": "c"}]
    address = coco(tmp_path, records, categories=classes)
    file = tmp_path / "set" / "set.json"
    content, rng = json.loads(file.read_text()), random.Random(seed)
    outcomes = set()
    for _ in range(100):
        file.write_text(json.dumps(mutated(content, rng)))
        outcomes.add(outcome(address, **rng.choice(FLAGS)))
    assert {"read", "refused"} <= outcomes


def test_any_value_of_labelmes_json_may_be_junk(tmp_path):
    shapes = [
        shape("polygon", [[1, 1], [9, 1], [9, 9]]),
        shape("rectangle", [[1, 1], [9, 9]], group=3),
        shape("circle", [[9, 9], [9, 12]], "dog", group=3),
    ]
    address = labelme(tmp_path, shapes)
    rng, outcomes = random.Random(0), set()
    content = labelme_file("a.png", shapes)
    for _ in range(200):
        tool_exports.write(tmp_path / "a.json", mutated(content, rng))
        options = {"training": rng.random() < 0.5, "masks": rng.random() < 0.5}
        outcomes.add(outcome(address, **options))
    assert {"read", "refused"} <= outcomes


def test_any_line_of_yolo_and_any_tag_of_voc_may_be_junk(tmp_path):
    rng, outcomes = random.Random(0), set()
    address = tool_exports.roboflow_yolo(tmp_path / "yolo")
    words = ["0", "1", "0.5", "0.25", "-1", "nan", "inf", "1e9", "x", "", "\0", "9" * 400]
    for _ in range(20):
        line = " ".join(rng.choice(words) for _ in range(rng.randrange(9)))
        lines = tool_exports.CORNERS + line
        tool_exports.write(tmp_path / "yolo" / "train" / "labels" / "a.txt", lines)
        outcomes.add(outcome(address, training=True, masks=True))
    address = tool_exports.labelimg_voc(tmp_path / "voc")
    text = tool_exports.xml("a.png", [("cat", tool_exports.CAT)])
    for _ in range(80):
        start = rng.randrange(len(text))
        junk = rng.choice(["", "<", "-1", "nan", "<a/>", "0"])
        tool_exports.write(
            tmp_path / "voc" / "a.xml", text[:start] + junk + text[start + rng.randrange(9) :]
        )
        outcomes.add(outcome(address, training=rng.random() < 0.5))
    assert {"read", "refused"} <= outcomes
