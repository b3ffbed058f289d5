"""Label maps as people make them: masks of 0 and 255, colors, classes from 1, turned photos."""

import numpy as np
import pytest
import scenes
from PIL import Image

from moco_tf.data.findings import REFUSED
from moco_tf.segmentation import examination, scoring, sources

SIZE = 40, 50


def pairs(folder, maps, num_classes=2, orientation=None, size=SIZE):
    """Pairs of black images, photos with an EXIF orientation if it is given, and these maps."""
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for i, label in enumerate(maps):
        image = Image.new("RGB", size[::-1])
        exif = Image.Exif()
        exif[0x0112] = orientation or 1
        image.save(folder / "images" / f"{i}.jpg", exif=exif)
        Image.fromarray(label).save(folder / "labels" / f"{i}.png")
    return sources.open_pairs(f"folders:{folder}/images,{folder}/labels", num_classes)


def halves(low, high, size=SIZE):
    label = np.full(size, low, np.uint8)
    label[:, : int(0.3 * size[1])] = high
    return label


def lines(pairs, *severities):
    return examination.examine(pairs, quiet=True).findings.lines(severities or [REFUSED])


def test_masks_of_0_and_255_are_refused(tmp_path):
    (line,) = lines(pairs(tmp_path, [halves(0, 255)] * 2))
    assert "only class 0 and 255, which is ignored (0: 70.0%, 255: 30.0% of the pixels)" in line


def test_classes_from_1_are_named_as_that(tmp_path):
    text = "\n".join(lines(pairs(tmp_path, [halves(1, 2)] * 2)))
    assert "classes numbered from 1 (1: 70.0%, 2: 30.0%" in text and "Subtract 1" in text
    assert "0.png: has 2 in 30.0% of the pixels" in text


def test_a_class_without_a_pixel_is_warned_of(tmp_path):
    text = "\n".join(lines(pairs(tmp_path, [halves(0, 2)], 4), "warning", "refused"))
    assert text.startswith("warning: 2 classes without a pixel (1, 3)")


@pytest.mark.parametrize(
    "label, message",
    [
        (np.tile(halves(0, 128)[..., None], 3), "label maps in color .*2 colors, such as .0, 0, 0"),
        (halves(0, 1).astype(np.uint16), "no PNG of one channel.*a PNG of 16 bits"),
    ],
)
def test_maps_of_colors_and_16_bits_are_named(tmp_path, label, message):
    with pytest.raises(ValueError, match=message):
        examination.check(pairs(tmp_path, [label]), "folders:x", quiet=True)


def test_photos_that_exif_turns_are_named(tmp_path):
    (line,) = lines(pairs(tmp_path, [halves(0, 1)], orientation=6, size=(50, 40)))
    assert "EXIF orientation turns by 90 degrees" in line and "EXIF orientation 6" in line


def test_photos_that_exif_turns_by_180_degrees_are_warned_of(tmp_path):
    text = "\n".join(lines(pairs(tmp_path, [halves(0, 1)], orientation=3), "warning"))
    assert "EXIF orientation turns or mirrors" in text and "0.jpg" in text


def test_scores_of_nothing_are_no_numbers():
    """A matrix without pixels, which a test set of ignored pixels would give."""
    assert np.isnan(scoring.class_iou(np.zeros((2, 2), int))).all()


def test_maps_that_are_right_have_no_findings(tmp_path):
    address = scenes.write(tmp_path, 3)
    assert not lines(sources.open_pairs(address, 4), "refused", "warning")
