"""Folders of a run: one without a held-out split, one that was moved."""

import logging
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf.data import sources
from moco_tf.data.sources import from_arrays
from moco_tf.data.split import hold_out
from moco_tf.pretraining import data_record, run
from moco_tf.probes import monitor


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two hundred images in class folders, without a test split."""
    root = tiny.shapes_folder(tmp_path_factory.mktemp("shapes"))
    return (root / "train").rename(root / "photos")


def fit_only(monkeypatch):
    """Replaces training by a note of the plan and the scores it would get."""
    calls = []

    def fit(model, path, config, plan, dataset, step, scores, *_, **__):
        calls.append(types.SimpleNamespace(plan=plan, scores=scores))
        return 0

    monkeypatch.setattr(run.fit, "fit", fit)
    monkeypatch.setattr(run.report, "write", lambda *_: None)
    return calls


def test_a_tenth_of_each_class_is_held_out_by_a_seed():
    labels = np.repeat([0, 1, 2, 3], [100, 40, 3, 1])
    images = np.arange(144, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    rest, held_out = hold_out(from_arrays(images, labels), 0.1, seed=0)
    assert np.bincount(held_out.labels, minlength=4).tolist() == [10, 4, 1, 0]
    numbers = [
        [int(source.image(i)[0, 0, 0]) for i in range(source.num_examples)]
        for source in (rest, held_out)
    ]
    assert sorted(numbers[0] + numbers[1]) == list(range(144))
    assert [labels[n] for n in numbers[1]] == held_out.labels.tolist()
    again = hold_out(from_arrays(images, labels), 0.1, seed=1)[1]
    assert [int(again.image(i)[0, 0, 0]) for i in range(15)] != numbers[1]


def test_one_labelled_folder_has_a_monitor_of_images_that_are_not_trained_on(
    photos, tmp_path, monkeypatch, caplog
):
    calls = fit_only(monkeypatch)
    fields = {"data__source": f"folder:{photos}", "monitor__source": "auto"}
    config = tiny.config(**fields, monitor__neighbours=5)
    with caplog.at_level(logging.INFO):
        run.pretrain(config, str(tmp_path / "run"), tf.distribute.get_strategy())
    (call,) = calls
    held_out = 200 - call.plan.num_images
    assert 16 <= held_out <= 24
    assert f"{held_out} of 200 images, a tenth of each class, are not trained on" in caplog.text
    assert call.scores() is not None
    off = tiny.config(data__source=f"folder:{photos}")
    source = sources.open_source(f"folder:{photos}")
    assert monitor.hold_out(off, source) == (source, None)


def test_a_moved_folder_is_known_by_its_images(photos, tmp_path, monkeypatch, caplog):
    fit_only(monkeypatch)
    workdir, strategy = str(tmp_path / "run"), tf.distribute.get_strategy()
    run.pretrain(tiny.config(data__source=f"folder:{photos}"), workdir, strategy)
    (tmp_path / "run" / "checkpoints").mkdir()
    moved = shutil.copytree(photos, tmp_path / "mnt" / "elsewhere")
    there = tiny.config(data__source=f"folder:{moved}")
    run.pretrain(there, workdir, strategy)
    with pytest.raises(ValueError, match="model.dim: 8 -> 4"):
        run.pretrain(tiny.config(data__source=f"folder:{moved}", model__dim=4), workdir, strategy)
    image = next(moved.rglob("*.png"))
    content = image.read_bytes()
    image.write_bytes(content + b"0")
    with pytest.raises(ValueError, match="data.source: 'folder:.*-> 'folder:.*elsewhere'"):
        run.pretrain(there, workdir, strategy)
    assert "as many, but sizes of files differ" in caplog.text
    image.write_bytes(content)
    run.pretrain(there, workdir, strategy)
    image.rename(moved / "other.png")
    with pytest.raises(ValueError, match="data.source: 'folder:.*-> 'folder:.*elsewhere'"):
        run.pretrain(there, workdir, strategy)


def test_records_are_known_by_their_files_and_arrays_by_their_number():
    def stream(folder, take):
        shards = tuple((f"{folder}/{i}.tfrecord", 0, take) for i in range(2))
        return sources.Stream(2 * take, shards, parse=None)

    a, b = data_record.identity(stream("gs://a/x", 3)), data_record.identity(stream("/b", 3))
    assert a == b != data_record.identity(stream("/b", 4))
    arrays = from_arrays(np.zeros((5, 2, 2, 3), np.uint8))
    assert data_record.identity(arrays)["images"] == 5


def test_a_changed_folder_is_warned_of_at_the_same_address(tmp_path, caplog):
    facts = {"images": 5, "names": "a", "sizes": "b"}
    data_record.write(str(tmp_path), facts, tf.distribute.get_strategy())
    assert data_record.movable(str(tmp_path), facts | {"sizes": None}) == data_record.ADDRESSES
    assert not caplog.records
    assert data_record.movable(str(tmp_path), facts | {"images": 6, "names": "c"}) == ()
    assert "not those that this run started with: 5 images then, 6 now" in caplog.text
