"""Parts of embeddings: going on, joining, and refusing parts of other images."""

import io
import types

import numpy as np
import pyarrow.parquet
import pytest
from tqdm import tqdm

from moco_tf.commands import client
from moco_tf.evaluation import embedding_parts, embeddings
from moco_tf.evaluation.embedding_parts import Parts, read_facts

NAMES = ["a.png", "photos/bb.png", "c.png", "a long name.png", "e.png"]
X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
OK = np.array([True, False, True, True, False])


def write(parts, *rows):
    names = np.array([NAMES[i] for i in rows])
    parts.add({"name": names, "embedding": X[list(rows)], "ok": OK[list(rows)]})
    parts.flush()


def test_parts_are_joined_and_removed(tmp_path):
    output = str(tmp_path / "x.npz")
    parts = Parts(output)
    assert parts.num_done(NAMES) == 0
    write(parts, 0, 1)
    write(parts, 2)
    again = Parts(output)  # the same command, after a kill
    assert again.num_done(NAMES) == 3
    write(again, 3, 4)
    assert again.undecodable() == (2, ["photos/bb.png", "e.png"])
    assert again.join()["embedding"] == (5, 3)
    outputs = np.load(output)
    assert sorted(outputs) == ["embedding", "name", "ok"]
    assert outputs["name"].tolist() == NAMES
    np.testing.assert_array_equal(outputs["embedding"], X)
    np.testing.assert_array_equal(outputs["ok"], OK)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


def test_parts_of_other_images_are_refused(tmp_path):
    parts = Parts(str(tmp_path / "x.npz"))
    write(parts, 0, 1)
    with pytest.raises(ValueError, match=r"of the same images.*0000000.npz. Remove the folder"):
        parts.num_done(NAMES[1:])


def test_parts_of_another_encoder_are_removed(tmp_path):
    output = str(tmp_path / "x.npz")
    write(Parts(output, {"encoder": "a"}), 0, 1)
    assert Parts(output, {"encoder": "a"}).num_done(NAMES) == 2
    parts = Parts(output, {"encoder": "b"})
    assert parts.num_done(NAMES) == 0
    write(parts, 0, 1, 2, 3, 4)
    parts.join()
    assert read_facts(output) == {"encoder": "b"}
    assert np.load(output)["name"].tolist() == NAMES


def test_parquet_has_the_same_rows(tmp_path):
    output, facts = str(tmp_path / "x.parquet"), {"encoder": "a"}
    parts = Parts(output, facts)
    write(parts, 0, 1)
    write(parts, 2, 3, 4)
    assert parts.join() == {"name": (5,), "embedding": (5, 3), "ok": (5,)}
    assert read_facts(output) == facts
    table = pyarrow.parquet.read_table(output)
    assert table["name"].to_pylist() == NAMES and table["ok"].to_pylist() == OK.tolist()
    assert table.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 3)
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), X)
    names, vectors, encoder = embeddings.read(output)
    assert names.tolist() == np.array(NAMES)[OK].tolist() and encoder == "a"
    np.testing.assert_allclose(vectors, X[OK] / np.linalg.norm(X[OK], axis=1)[:, None], rtol=1e-6)


@pytest.mark.parametrize("output", ["x.csv", "gs://bucket/x.parquet"])
def test_other_outputs_are_refused(output):
    with pytest.raises(ValueError, match=rf"an \.npz file, or a local \.parquet.*{output}"):
        Parts(output)


@pytest.mark.parametrize("name", ["x.npz", "x.parquet"])
def test_other_files_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"no embeddings")
    with pytest.raises(ValueError, match=rf"`embed` or `client` has written.*{name}"):
        embeddings.read(str(tmp_path / name))
    np.savez(tmp_path / "y.npz", x=X)
    with pytest.raises(ValueError, match=r"must have name, ok.*y\.npz' with x\."):
        embeddings.read(str(tmp_path / "y.npz"))


class Server:
    """Answers with the first byte of each file; fails after some requests."""

    def __init__(self, requests):
        self.requests = requests

    def embed(self, encoded):
        self.requests -= 1
        if self.requests < 0:
            raise ConnectionError("no answer")
        first = np.array([[content[0]] for content in encoded], np.float32)
        return {"embedding": first, "ok": np.ones(len(encoded), bool)}


def test_a_client_goes_on_after_an_error_and_stops_when_asked_to(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_parts, "ROWS", 2)
    monkeypatch.setattr(client, "FLAGS", types.SimpleNamespace(batch=1))
    paths = []
    for i in range(7):
        (tmp_path / f"{i}.png").write_bytes(bytes([i]))
        paths.append(str(tmp_path / f"{i}.png"))

    def go_on(requests, stop=lambda: False):
        parts = Parts(str(tmp_path / "x.npz"))
        with tqdm(total=7, initial=parts.num_done(paths), file=io.StringIO()) as bar:
            client._embed_rest(Server(requests), paths, parts, bar, stop)
        return parts

    with pytest.raises(ConnectionError):
        go_on(3)
    parts = go_on(99, stop=lambda: True)  # after one more
    assert parts.num_done(paths) == 4
    parts = go_on(3)
    assert parts.num_done(paths) == 7
    assert parts.join()["embedding"] == (7, 1)
    assert np.load(tmp_path / "x.npz")["embedding"].ravel().tolist() == list(range(7))
