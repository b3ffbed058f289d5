"""Masks, boxes and photos that contradict one another: refused or counted, by file and record."""

import numpy as np
import pytest
from detection_sets import annotation
from home_made import BOX, SIZE, coco, examined, messages
from PIL import Image
from pycocotools import mask as coco_mask

from moco_tf.data.findings import REFUSED, WARNING
from moco_tf.detection.data import problems, run_lengths
from moco_tf.detection.data.annotations import check, open_annotations


def runs(mask, order="F"):
    """Run lengths of a mask, down its columns as COCO's, or along its rows ("C")."""
    flat = np.asarray(mask, int).ravel(order)
    changes = np.flatnonzero(np.diff(flat, prepend=0, append=0))
    return np.diff(changes[changes < len(flat)], prepend=0, append=len(flat)).tolist()


def drawn():
    """A mask of the box (5, 5, 25, 15), wide and low."""
    mask = np.zeros(SIZE, bool)
    mask[5:15, 5:25] = True
    return mask


def compressed(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


H, W = SIZE
COUNTS = runs(drawn())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "mask, message",
    [
        ({"size": [W, H], "counts": COUNTS}, "size [50, 40], image [40, 50]"),
        ({"size": [80, 25], "counts": COUNTS}, "size [80, 25], image [40, 50]"),
        ({"size": [10, 10], "counts": [0, 100]}, "size [10, 10], image [40, 50]"),
        ({"size": [H, W], "counts": COUNTS[:-1]}, "not to the 2000 px of size [40, 50]"),
        ({"size": [H, W], "counts": [*COUNTS, 7]}, "counts that add up to 2007, not to the 2000"),
        ({"size": [H, W], "counts": np.cumsum(COUNTS).tolist()}, "not to the 2000 px"),
        ({"size": [H, W], "counts": [205, 10, 245, 10]}, "counts that add up to 470, not to"),
        ({"size": [H, W], "counts": compressed(drawn()[:-1])}, "counts that add up to 1950"),
        ({"size": [H, W], "counts": " ".join(map(str, COUNTS))}, "not COCO's compressed text"),
        ({"size": [H, W], "counts": [-5, 2005]}, "neither whole numbers nor COCO's text"),
        ({"size": [H, W], "counts": None}, "neither whole numbers nor COCO's text"),
        ({"size": [H], "counts": COUNTS}, "a size that is not [height, width]: [40]"),
        ({"counts": COUNTS}, "a size that is not [height, width]: None"),
        ([5, 5, 25, 5, 25, 15], "neither polygons nor COCO's run lengths"),
        ([[5, 5, 25, 5, 25]], "a polygon of 5 numbers, an odd one"),
        ("mask.png", "neither polygons nor COCO's run lengths"),
    ],
)
def test_masks_that_cannot_be_are_refused(tmp_path, training, mask, message):
    records = [annotation(1, (5, 5, 25, 15), segmentation=mask)]
    (line,) = messages(coco(tmp_path, records), training=training, masks=True)
    assert message in line and f"{tmp_path}/set/set.json, annotation 1" in line


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [H, W], "counts": COUNTS},
        {"size": [H, W], "counts": compressed(drawn())},
        [[5, 5, 25, 5, 25, 15, 5, 15]],
    ],
)
def test_masks_that_are_right_are_read(tmp_path, mask):
    records = [annotation(1, (5, 5, 25, 15), segmentation=mask)]
    examination = examined(coco(tmp_path, records), training=False, masks=True)
    assert not examination.findings.kinds(REFUSED, WARNING)
    np.testing.assert_array_equal(coco_mask.decode(examination.annotations.rles[0]), drawn())


@pytest.mark.parametrize(
    "mask",
    [
        {"size": [H, W], "counts": runs(drawn(), "C")},  # along rows
        {"size": [H, W], "counts": runs(np.roll(drawn(), 24, axis=1))},  # of something else
        [[30, 20, 45, 20, 45, 35]],
    ],
)
def test_a_mask_outside_its_box_is_counted(tmp_path, mask):
    records = [annotation(1, (5, 5, 25, 15), segmentation=mask), annotation(2, BOX)]
    findings = examined(coco(tmp_path, records), masks=True).findings
    assert findings.count(problems.OUTSIDE) == 1
    assert "annotation 1" in findings.describe(problems.OUTSIDE)


@pytest.mark.parametrize("training", [True, False])
def test_a_mask_far_beyond_its_image_is_refused_before_it_is_drawn(tmp_path, training):
    records = [annotation(1, BOX, segmentation=[[5, 5, 1e9, 5, 5, 20]])]
    (line,) = messages(coco(tmp_path, records), training=training, masks=True)
    assert "masks that reach far beyond their images" in line and "annotation 1" in line


def test_what_has_no_mask_is_counted(tmp_path):
    empty = {"size": list(SIZE), "counts": [H * W]}
    records = [
        annotation(1, BOX, segmentation=[[]]),
        annotation(1, (6, 6, 20, 20), segmentation=empty),
        annotation(1, (7, 7, 20, 20), segmentation=[[7, 7, 9, 9], [7, 7, 20, 7, 20, 20]]),
    ]
    findings = examined(coco(tmp_path, records), masks=True).findings
    assert findings.count(problems.SHORT_POLYGON) == 2
    assert findings.count(problems.NO_MASK) == 2


def test_the_sum_of_compressed_counts_is_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random(rng.integers(1, 90, 2)) < rng.random()
        counts = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
        assert run_lengths.total_of_text(counts) == mask.size
    for text in ("", "0", "~~", "P"):
        with pytest.raises(ValueError):
            run_lengths.check({"size": [3, 3], "counts": text})


def photo(path, orientation, size):
    """A JPEG whose stored pixels are `size`, (height, width), with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size[::-1]).save(path, "JPEG", exif=exif)


@pytest.mark.parametrize("orientation, stored", [(6, (50, 40)), (8, (50, 40)), (3, SIZE)])
def test_photos_that_exif_turns_are_named(tmp_path, caplog, orientation, stored):
    address = coco(tmp_path, [annotation(1, BOX)], count=1)
    photo(tmp_path / "set" / "001.png", orientation, stored)
    annotations = open_annotations(address, training=True)
    if orientation == 3:
        check(annotations, address, quiet=True)
        assert "EXIF orientation 3: turned by 180 degrees" in caplog.messages[-1]
        return
    match = rf"001.png: \[50 40\] px, annotated \[40 50\] px, EXIF orientation {orientation}: turn"
    with pytest.raises(ValueError, match=match):
        check(annotations, address, quiet=True)


@pytest.mark.parametrize("stored, kind", [((50, 40), "swapped"), ((41, 50), "of another size")])
def test_sizes_that_are_not_the_images_are_named(tmp_path, stored, kind):
    address = coco(tmp_path, [annotation(1, BOX)], count=1)
    Image.new("RGB", stored[::-1]).save(tmp_path / "set" / "001.png")
    with pytest.raises(ValueError, match=kind):
        check(open_annotations(address, training=True), address, quiet=True)


def corner_records(count=8):
    """Objects whose bbox holds x1, y1, x2, y2, as an export by mistake writes them."""
    records = []
    for i in range(count):
        x, y = 12 + i, 10 + i
        record = annotation(1 + i % 2, (x, y, x + 14, y + 12))
        records.append({**record, "bbox": [x, y, x + 14, y + 12]})
    return records


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masks", [True, False])
def test_corners_in_place_of_width_and_height_are_warned_of(tmp_path, training, masks):
    findings = examined(coco(tmp_path, corner_records()), training, masks=masks).findings
    assert findings.count(problems.CORNERS) >= (8 if masks else 3)
    assert problems.BEYOND not in findings.kinds()
    right = [{**r, "bbox": [*r["bbox"][:2], 14, 12]} for r in corner_records()]
    assert not examined(coco(tmp_path, right), training, masks=masks).findings.kinds(WARNING)


def test_a_box_that_is_no_number_is_refused_whatever_the_reader(tmp_path, monkeypatch):
    (tmp_path / "odd_reader.py").write_text(
        "from moco_tf.detection.data.objects import Objects, RawAnnotations\n"
        "ADDRESSES = ()\n"
        "def read(address, rest, **flags):\n"
        "    objects = Objects()\n"
        "    objects.add(image=0, label=0, box=(1, 2, float('nan'), 4))\n"
        "    return RawAnnotations(['a.png'], ['a'], [(9, 9)], ('cat',), [0], objects)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = messages("odd_reader:x")
    assert "not four finite numbers (annotation 0: x1, y1, x2, y2 = [1.0, 2.0, nan, 4.0])" in line


def test_some_boxes_beyond_their_images_are_counted(tmp_path):
    records = [annotation(1, (5 + i, 5, 20 + i, 20)) for i in range(9)]
    records.append(annotation(2, (30, 10, 70, 30)))
    findings = examined(coco(tmp_path, records)).findings
    assert findings.count(problems.BEYOND) == 1
    assert "x 30 to 70, y 10 to 30 px, image 50 x 40 px" in findings.describe(problems.BEYOND)


@pytest.mark.parametrize("training", [True, False])
def test_shares_in_place_of_px_are_refused(tmp_path, training):
    records = [annotation(i, (0.1, 0.2, 0.5, 0.7)) for i in (1, 2)]
    lines = messages(coco(tmp_path, records), training=training)
    assert lines[0].startswith("refused: 2 boxes within [0, 1] px")
