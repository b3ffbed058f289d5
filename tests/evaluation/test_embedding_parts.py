"""Parts of embeddings: going on, joining, and refusing parts of other images."""

import io
import types

import numpy as np
import pytest
from tqdm import tqdm

from moco_tf.commands import client
from moco_tf.evaluation import embedding_parts
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
