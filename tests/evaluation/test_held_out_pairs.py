"""Evaluations of a run on one labelled folder: its held-out tenth; the monitor's own sources."""

import logging
import shutil

import pytest
import tiny

from moco_tf.data import sources
from moco_tf.evaluation import labelled
from moco_tf.evaluation.config import Data
from moco_tf.probes import monitor


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two hundred images in class folders, without a test split."""
    root = tiny.shapes_folder(tmp_path_factory.mktemp("shapes"))
    return (root / "train").rename(root / "photos")


def config(photos, source="auto"):
    fields = {"data__source": f"folder:{photos}", "monitor__source": source}
    return tiny.config(**fields, monitor__every_epochs=1)


def test_an_evaluation_tests_on_the_images_that_the_run_held_out(photos):
    run = config(photos)
    pair = labelled.open_pair(Data(), run)
    rest, held_out = monitor.hold_out(run, sources.open_source(run.data.source))
    assert list(pair.train.files) == list(rest.files)
    assert list(pair.test.files) == list(held_out.files)
    assert pair.num_classes == len(set(rest.labels))
    with pytest.raises(ValueError, match="has no labelled splits"):
        labelled.open_pair(Data(), config(photos, "off"))


def test_a_copy_of_a_training_image_is_no_test_image(photos, tmp_path, caplog):
    """A folder of one's own photos holds copies; the tenth that was held out may have some."""
    copied = shutil.copytree(photos, tmp_path / "photos")
    pair = labelled.open_pair(Data(), config(copied))
    shutil.copy(pair.test.files[0], pair.train.files[0])
    with caplog.at_level(logging.INFO):
        again = labelled.open_pair(Data(), config(copied))
    assert list(again.test.files) == list(pair.test.files)[1:]
    assert "1 test images are copies of training images" in caplog.text


def test_the_monitor_s_sources_are_evaluated(photos, tmp_path):
    folders = [shutil.copytree(photos, tmp_path / name) for name in ("bank", "queries")]
    run = config(photos, ",".join(f"folder:{folder}" for folder in folders))
    with pytest.raises(ValueError, match=r"No test image may be a training image.*/queries/"):
        labelled.open_pair(Data(), run)
