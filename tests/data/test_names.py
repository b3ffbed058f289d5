"""Names of many files: packed, sliced in graphs, and kept with a run."""

import numpy as np
import tensorflow as tf
from PIL import Image

from moco_tf.data import sources
from moco_tf.data.sources import folder as folders
from moco_tf.data.sources.names import BLOCK, Chosen, Names

TEXTS = [f"{i % 7}/{'x' * (i % 11)}ä{i}.png" for i in range(2 * BLOCK + 5)] + [""]


def test_names_are_a_sequence_in_python_and_in_graphs():
    names = Names(TEXTS, root="/photos")
    assert list(names) == [f"/photos/{text}" for text in TEXTS]
    assert len(names) == len(TEXTS)
    for i in (0, 1, BLOCK - 1, BLOCK, BLOCK + 1, len(TEXTS) - 1, -1):
        assert names[i] == f"/photos/{TEXTS[i]}"
    data = tf.data.Dataset.range(len(TEXTS)).map(names.tensor)
    assert [x.decode() for x in data.as_numpy_iterator()] == TEXTS
    index = np.array([70, 0, 128, 63])
    assert [x.decode() for x in names.tensor(index).numpy()] == [TEXTS[i] for i in index]
    assert names.paths(3).numpy().decode() == names[3]
    assert list(Chosen(names, index)) == [names[int(i)] for i in index]
    assert list(Chosen(Chosen(names, index), [2, 0])) == [names[128], names[70]]
    assert list(Chosen(("a", "b", "c"), [2, 1])) == ["c", "b"]
    assert len(Names([])) == 0


def test_labels_are_captured_and_not_in_the_graph():
    labels = np.arange(50_000) % 10
    source = sources.from_arrays(np.zeros((50_000, 1, 1, 3), np.uint8), labels)
    function = tf.function(source.label).get_concrete_function(tf.TensorSpec([], tf.int64))
    assert function.graph.as_graph_def().ByteSize() < 10_000
    assert [int(function(tf.constant(i, tf.int64))) for i in (0, 3, 49_999)] == [0, 3, 9]
    assert int(source.subset(np.array([7, 5])).label(1)) == 5


def test_a_large_folder_is_listed_once_a_run(tmp_path, monkeypatch):
    for name in ("b/2.png", "a-b/1.png", "a/3.png", "a/x/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "photos" / name)
    monkeypatch.setattr(folders, "KEPT_FROM", 4)
    address, index_dir = f"folder:{tmp_path}/photos/", str(tmp_path / "run" / "sources")
    source = sources.open_source(address, index_dir=index_dir)
    monkeypatch.setattr(folders, "list_images", None)  # would be called
    again = sources.open_source(address, index_dir=index_dir)
    names = ["a-b/1.png", "a/3.png", "a/x/1.png", "b/2.png"]
    for opened in (source, again):
        assert [opened.name(i).numpy().decode() for i in range(4)] == names
        assert list(opened.files) == [f"{tmp_path}/photos/{name}" for name in names]
        assert opened.classes == ("a", "a-b", "b") and opened.labels.tolist() == [1, 0, 0, 2]
        assert opened.image(2).shape == (2, 2, 3)
