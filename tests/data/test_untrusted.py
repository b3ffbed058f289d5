"""Names that come from data: they stay text in reports, and cannot lead out of a folder."""

import html
import shutil

import numpy as np
import pytest
import tiny
from evaluations import evaluate
from PIL import Image

from moco_tf import storage
from moco_tf.data import sources as datasets
from moco_tf.data.labelled import evaluation_dataset
from moco_tf.segmentation import sources

EVIL = '<img src=x onerror="alert(1)">'


def test_reports_escape_names_of_classes_files_and_folders(tmp_path):
    folder = tiny.shapes_folder(tmp_path / "<b>data", 90)
    for split in ("train", "test"):
        classes = sorted((folder / split).iterdir())
        shutil.move(classes[0], folder / split / EVIL)
        shutil.move(classes[1], folder / split / "'><script>alert(1)<")
    run = tmp_path / "<i>run"
    tiny.pretrain(run, report=True, data__source=f"folder:{folder}/train")
    evaluate("linear_cached", run, tmp_path / "<u>evaluation", epochs=2)
    pages = [run / "report.html", tmp_path / "<u>evaluation" / "report.html"]
    for page in pages:
        text = page.read_text()
        assert not any(tag in text for tag in ("<img src=x", "<script", "<b>data", "<i>run"))
    assert html.escape(EVIL) in pages[1].read_text()


def test_lists_of_images_cannot_lead_out_of_their_folder(tmp_path):
    root = tmp_path / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    for folder in (tmp_path, root / "JPEGImages"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / "secret.jpg")
    (root / "SegmentationClass" / "secret.png").touch()
    listed = root / "ImageSets" / "Segmentation" / "train.txt"
    listed.write_text("secret\n")
    assert sources.open_pairs(f"voc:{root}:train").num_examples == 1
    for name in ("../../secret", "a/../../secret"):
        listed.write_text(f"secret\n{name}\n")
        with pytest.raises(ValueError, match=f"must name files below .*VOC2012'.*{name}.jpg"):
            sources.open_pairs(f"voc:{root}:train")
    with pytest.raises(ValueError, match="must name files below '/data'. Received: '/etc/passwd'"):
        storage.below("/data", "/etc/passwd")


def test_what_cannot_be_opened_is_counted_as_bad(tmp_path):
    """A link to nothing, and a folder with the name of an image: as without permission to read."""
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "good.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "folder.png").mkdir()
    source = datasets.open_source(f"folder:{tmp_path}")
    data = evaluation_dataset(source, image_size_px=8, resize_px=9, batch=1)
    ok = {
        source.name(i).numpy().decode(): bool(batch["ok"][0])
        for i, batch in enumerate(data.as_numpy_iterator())
    }
    assert ok.pop("good.png") and not any(ok.values())
