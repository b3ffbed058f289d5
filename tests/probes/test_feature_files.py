"""Features on disk: extraction that goes on, split over processes, read by rows."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from moco_tf import distribute, workers
from moco_tf.data import sources
from moco_tf.probes import feature_files, features, knn, linear
from moco_tf.probes.feature_files import FeatureFiles, Rows

N, BATCH = 45, 4
SIZES = {"image_size_px": 8, "resize_px": 8, "batch": BATCH}


@pytest.fixture
def rows_on_disk(tmp_path):
    x = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)
    paths = [str(tmp_path / f"{i}.npy") for i in range(3)]
    for i, path in enumerate(paths):
        np.save(path, x[10 * i : 10 * i + 10])
    return Rows(paths, 10, 23), x


def test_rows_are_indexed_as_an_array(rows_on_disk):
    rows, x = rows_on_disk
    assert len(rows) == 23 and rows.shape == x.shape and rows.dtype == x.dtype
    chosen = np.array([22, 0, 9, 10, 0])
    for key in (slice(None), slice(8, 21, 3), slice(-2, None), chosen, x[:, 0] > 0, chosen[:0]):
        np.testing.assert_array_equal(rows[key], x[key])
        np.testing.assert_array_equal(rows.at(chosen)[slice(1, 4)], x[chosen][1:4])
    np.testing.assert_array_equal(rows.at(chosen).at([3, 1])[:], x[[10, 0]])
    np.testing.assert_array_equal(np.asarray(rows), x)
    np.testing.assert_array_equal(rows[11], x[11])


def test_neighbours_and_classifiers_are_those_of_an_array(rows_on_disk):
    rows, x = rows_on_disk
    for a, b in zip(knn.nearest(rows, rows[:3], 4, chunk=7), knn.nearest(x, x[:3], 4), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    labels = np.arange(23) % 3
    options = dict(momentum=0.9, batch_size=8, epochs=2, seed=0, title=None)
    on_disk, in_memory = (linear.fit(a, labels, 3, [0.1], [0.0], **options) for a in (rows, x))
    np.testing.assert_array_equal(on_disk.weights, in_memory.weights)
    predicted, is_finite = on_disk.predict(0, rows, block=7)
    np.testing.assert_array_equal(predicted, in_memory.logits(0, x).argmax(axis=1))
    assert is_finite and not on_disk._replace(biases=on_disk.biases * np.nan).predict(0, rows)[1]


class Extraction:
    """An extraction of means and sums of colors, of which image 7 cannot be decoded."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (N, 8, 8, 3), np.uint8)
        encoded = [tf.io.encode_png(image).numpy() for image in self.images]
        encoded[7] = b"none"
        self.source = sources.from_bytes(encoded, [str(i) for i in range(N)], np.arange(N) % 5)
        self.files = FeatureFiles(str(folder / "set"), N, BATCH)
        self.computed = []

    def run(self, stop_before=None):
        def predict(batch):
            x = tf.cast(batch["x"], tf.float32)
            means = tf.reduce_mean(x, (1, 2))
            return {"x0": means, "x1": means[:, :1], "label": batch["label"], "ok": batch["ok"]}

        strategy = tf.distribute.get_strategy()
        own = distribute.make_predict_own(strategy, predict)

        def predict_own(*args):
            for first, outputs in own(*args):
                if len(self.computed) == stop_before:
                    raise KeyboardInterrupt
                self.computed.append(outputs["label"])
                yield first, outputs

        features.extract_to(self.files, predict_own, self.source, strategy, **SIZES)
        return features.read_from(self.files)


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(feature_files, "ROWS", 10)  # files of 8 rows, 6 of them


def test_an_extraction_goes_on_where_it_was_stopped(tmp_path):
    extraction = Extraction(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        extraction.run(stop_before=7)
    assert extraction.files.missing() == [3, 4, 5]
    killed = pathlib.Path(extraction.files.path("x0", 3))  # as a process that was killed leaves it
    killed.with_name(f".123-{killed.name}").write_bytes(b"half")
    (x, first), labels, ok = extraction.run()
    means = extraction.images.mean((1, 2), dtype=np.float64)
    good = np.arange(N) != 7
    np.testing.assert_array_equal(ok, good)
    np.testing.assert_allclose(x[:][good], means[good], rtol=1e-5)
    np.testing.assert_array_equal(first[:], x[:][:, :1])
    np.testing.assert_array_equal(labels[good], np.arange(N)[good] % 5)
    assert len(extraction.computed) == 7 + 6  # 3 files of 2 batches were there
    extraction.run()
    assert len(extraction.computed) == 13
    assert not list(tmp_path.glob(".*"))  # nothing temporary is left


def test_processes_write_files_of_their_own(tmp_path, monkeypatch):
    together = Extraction(tmp_path)
    monkeypatch.setattr(distribute, "num_workers", lambda strategy: 2)
    monkeypatch.setattr(distribute, "_make_predict", one_process(distribute._make_predict))
    monkeypatch.setattr(FeatureFiles, "missing", lambda files: list(range(files.num_files)))
    for worker in (1, 0):
        monkeypatch.setattr(workers, "worker_number", lambda strategy, i=worker: i)
        if worker == 1:
            with pytest.raises(FileNotFoundError):  # half of the files are yet to come
                together.run()
        else:
            result = together.run()
    assert len(together.computed) == 12
    (tmp_path / "alone").mkdir()
    monkeypatch.setattr(distribute, "num_workers", lambda strategy: 1)
    alone = Extraction(tmp_path / "alone").run()
    np.testing.assert_array_equal(result.x[0][:], alone.x[0][:])
    np.testing.assert_array_equal(result.ok, alone.ok)


def one_process(make):
    return lambda strategy, run, workers: make(strategy, run, workers=1)
