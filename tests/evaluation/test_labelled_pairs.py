"""What must hold of the images of an evaluation, and which of them are used."""

import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

from moco_tf.data.sources import synthetic
from moco_tf.evaluation import labelled
from moco_tf.evaluation.config import Data

IMAGES, LABELS = synthetic.shapes(60, seed=0)


@pytest.fixture
def folders(tmp_path):
    """train/ with 12 images a class of three, test/ with 4 others."""
    for i, image in enumerate(IMAGES[:48]):
        split, number = ("train", i) if i < 36 else ("test", i)
        path = tmp_path / split / "abc"[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path


def open_pair(root, **fields):
    return labelled.open_pair(
        Data(train=f"folder:{root}/train", test=f"folder:{root}/test", **fields), None
    )


def test_the_run_s_own_splits_stand_in(folders):
    run = tiny.config(data__source=f"folder:{folders}/train")
    pair = labelled.open_pair(Data(), run)
    assert pair.addresses == (f"folder:{folders}/train", f"folder:{folders}/test")
    assert (pair.train.num_examples, pair.test.num_examples) == (36, 12)
    assert pair.classes == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"must be given, because the checkpoint is a file"):
        labelled.open_pair(Data(), None)
    with pytest.raises(ValueError, match="must be given together"):
        labelled.open_pair(Data(test="synthetic:shapes"), run)


def test_test_images_of_some_classes_are_numbered_as_in_training(folders):
    shutil.rmtree(folders / "test" / "a")
    pair = open_pair(folders)
    assert set(pair.test.labels) == {1, 2}


def test_a_share_is_of_each_class_and_seeded(folders):
    labels = np.repeat([0, 1, 2], [100, 40, 3])
    chosen = labelled.balanced(labels, 0.1, seed=0)
    assert list(np.bincount(labels[chosen])) == [10, 4, 1]
    assert (np.diff(chosen) > 0).all()
    assert list(labelled.balanced(labels, 0.1, seed=0)) == list(chosen)
    assert list(labelled.balanced(labels, 0.1, seed=1)) != list(chosen)
    assert open_pair(folders, fraction=0.25).train.num_examples == 9


def test_a_list_of_names_with_or_without_folders(folders):
    (folders / "names.txt").write_text("00.png\nb/01.png\n02.png\n\n")
    train = open_pair(folders, names=str(folders / "names.txt")).train
    names = sorted(train.name(i).numpy().decode() for i in range(3))
    assert names == ["a/00.png", "b/01.png", "c/02.png"]
    (folders / "names.txt").write_text("00.png\nnone.png\n")
    with pytest.raises(ValueError, match=r"Received other names: none.png \(1 of 2\)"):
        open_pair(folders, names=str(folders / "names.txt"))


def test_a_class_that_a_choice_leaves_empty_is_named(folders):
    (folders / "names.txt").write_text("00.png\n01.png\n")
    with pytest.raises(ValueError, match=r"must have a training image.* none for c \(1 of 3"):
        open_pair(folders, names=str(folders / "names.txt"))


def test_labels_outside_the_classes_are_refused(folders):
    with pytest.raises(ValueError, match=r"Labels must be in 0..1. Received: 2 and 11 more"):
        open_pair(folders, num_classes=2)
    with pytest.raises(ValueError, match=r"Every class must have a training image"):
        open_pair(folders, num_classes=5)


def test_a_test_image_that_is_a_training_image_is_refused(folders):
    shutil.copy(folders / "train" / "a" / "00.png", folders / "test" / "b" / "other_name.png")
    with pytest.raises(ValueError, match=r"1 with the same content, such as .*other_name.png"):
        open_pair(folders)


def test_classes_of_the_test_images_must_be_those_of_the_training_images(folders):
    (folders / "test" / "c").rename(folders / "test" / "z")
    with pytest.raises(ValueError, match="Received: z, without training"):
        open_pair(folders)


def test_images_without_labels_are_refused(folders):
    flat = folders / "flat"
    flat.mkdir()
    for path in (folders / "train").rglob("*.png"):
        shutil.copy(path, flat)
    data = Data(train=f"folder:{flat}", test=f"folder:{folders}/test")
    with pytest.raises(ValueError, match="sub-folders for folder:"):
        labelled.open_pair(data, None)
