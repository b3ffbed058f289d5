"""Findings are counted, shown three of a kind, and refuse by their kind alone."""

import io

import pytest
from PIL import Image

from moco_tf.data import exif
from moco_tf.data.findings import DROPPED, NOTE, REFUSED, WARNING, Findings, Kind
from moco_tf.reports import checks

SMALL = Kind(DROPPED, "small boxes", "Draw them again.")
ODD = Kind(WARNING, "odd boxes")
WRONG = Kind(REFUSED, "wrong boxes", "Fix them.")
NOTHING = Kind(REFUSED, "no boxes", "Add some.", counted=False)
FACT = Kind(NOTE, "classes without an object")


def filled():
    findings = Findings()
    findings.add_each(SMALL, range(7), lambda i: ("a.json", f"annotation {i}", "bbox", [i]))
    findings.add(ODD, "b.json")
    findings.add(FACT, value="cat, dog", count=2)
    findings.add(ODD, count=0)
    return findings


def test_findings_are_counted_and_three_are_shown():
    findings = filled()
    assert [findings.count(kind) for kind in (SMALL, ODD, FACT, WRONG)] == [7, 1, 2, 0]
    assert findings.kinds() == [SMALL, ODD, FACT] and findings.kinds(WARNING) == [ODD]
    assert findings.describe(SMALL) == (
        "7 small boxes (a.json, annotation 0: bbox = [0]; annotation 1: bbox = [1]; annotation 2: "
        "bbox = [2]; 7 in all). Draw them again."
    )
    assert findings.describe(FACT) == "2 classes without an object (cat, dog)."
    assert findings.dropped() == "; 7 small boxes dropped"
    described = []
    Findings().add_each(SMALL, range(100), lambda i: described.append(i) or ("",))
    assert described == [0, 1, 2]


def test_long_values_are_cut():
    findings = Findings()
    findings.add(WRONG, "a.json", "annotation 1", "bbox", list(range(1000)))
    assert len(findings.describe(WRONG)) < 200


def test_only_what_is_refused_refuses():
    findings = filled()
    findings.refuse("coco:x")
    findings.add(WRONG, "a.json", "annotation 9")
    with pytest.raises(ValueError, match=r"in 'coco:x': 1 wrong boxes .*annotation 9.* Fix them."):
        findings.refuse("coco:x")
    findings.add(NOTHING)
    with pytest.raises(ValueError, match=r"\n- 1 wrong boxes .*\n- no boxes. Add some."):
        findings.refuse("coco:x")


def test_the_report_tells_all_kinds_and_the_verdict():
    check = checks.Check("coco:x", filled(), [("images", "3")], ["class", "n"], [["<cat>", "12"]])
    text, page = checks.text(check), checks.page(check)
    assert "images  3\n" in text and "class   n\n<cat>  12\n" in text
    for title in ("Training leaves out", "Look at", "Worth to know"):
        assert title in text
    assert text.endswith("Can be trained on, with 2 kinds of findings.")
    assert "&lt;cat&gt;" in page and "annotation 2" in page
    check.findings.add(WRONG)
    assert check.is_refused and checks.text(check).endswith("Training would be refused.")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("endian", "<>")
def test_an_orientation_is_the_one_that_pil_wrote(orientation, endian):
    tags = Image.Exif()
    tags.endian = endian
    tags[0x010F], tags[0x0112] = "maker", orientation
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=tags)
    assert exif.orientation(file.getvalue()) == orientation


CUT = b"\xff\xd8\xff\xe1\x00\x10Exif\0\0MM"
FAR = CUT[:-2] + b"II\x2a\0\xff\xff\xff\xff"


@pytest.mark.parametrize("head", [b"", CUT[:2], CUT, b"\x89PNG", FAR])
def test_a_header_without_orientation_is_as_stored(head):
    assert exif.orientation(head) == 1
