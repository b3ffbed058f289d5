"""Embeddings of a folder: written, gone on with after a stop, searched, grouped."""

import csv
import json
import os
import pathlib
import runpy
import shutil
import sys

import numpy as np
import pytest
import sklearn.cluster
import tiny
from PIL import Image

import moco_tf
from moco_tf.commands import duplicates, embed, search
from moco_tf.evaluation import embeddings
from moco_tf.evaluation import search as grouping
from moco_tf.evaluation.embedding_parts import Parts

COPY = os.fsdecode(b"copy \xe9.png")  # in Latin-1, which is no UTF-8
SHOWN_COPY = r"copy \udce9.png"


@pytest.fixture(scope="module")
def photos(pretrained, tmp_path_factory):
    """Thirty of the run's images, a copy, one file that is no image, in one folder."""
    folder = tmp_path_factory.mktemp("my photos")
    config = json.loads((pretrained / "config.json").read_text())
    source = pathlib.Path(config["data"]["source"].partition(":")[2])
    for i, path in enumerate(sorted(source.rglob("*.png"))[::6][:30]):
        shutil.copy(path, folder / f"{i:02}.png")
    shutil.copy(folder / "03.png", folder / COPY)
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff no image")
    return folder


@pytest.fixture(scope="module")
def written(pretrained, photos, tmp_path_factory):
    output = str(tmp_path_factory.mktemp("out") / "photos.npz")
    assert embed.embed(str(pretrained), str(photos), output) == output
    return output


def test_a_file_has_what_the_encoder_computes(pretrained, photos, written):
    with np.load(written) as file:
        names, embedding, feature, ok = (file[n] for n in ("name", "embedding", "feature", "ok"))
    paths = sorted(str(path) for path in photos.iterdir())
    assert names.tolist() == paths
    assert [path.endswith("bad.jpg") for path in paths] == (~ok).tolist()
    assert not embedding[~ok].any() and not feature[~ok].any()
    want = moco_tf.load(str(pretrained)).embed(paths)
    np.testing.assert_allclose(embedding, want, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(embedding[ok], axis=1), 1, rtol=1e-5)
    assert not pathlib.Path(f"{written}.parts").exists()


def test_a_stopped_command_goes_on(pretrained, photos, written, tmp_path, monkeypatch, caplog):
    output, added = str(tmp_path / "x.npz"), []
    add = Parts.add

    def add_or_stop(parts, rows):
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(len(rows["ok"]))
        add(parts, rows)

    loaded = moco_tf.load(str(pretrained))
    source = embed.sources.open_source(f"folder:{photos}")
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "add", add_or_stop)
        with pytest.raises(KeyboardInterrupt):
            embeddings.write(loaded, source, output, batch=8)
    assert added == [8, 8] and not pathlib.Path(output).exists()
    more = []
    monkeypatch.setattr(Parts, "add", lambda p, rows: (more.append(len(rows["ok"])), add(p, rows)))
    embeddings.write(loaded, source, output, batch=8)
    assert sum(more) == 32 - 16
    assert f"1 of 32 images cannot be decoded, such as {photos}/bad.jpg" in caplog.text
    with np.load(output) as got, np.load(written) as want:
        for name in want:
            if name in ("embedding", "feature"):
                np.testing.assert_allclose(got[name], want[name], atol=1e-6)
            else:
                np.testing.assert_array_equal(got[name], want[name])
    embeddings.write(loaded, source, output)  # there is nothing to do
    assert sum(more) == 32 - 16


def test_a_search_shows_the_nearest_first(pretrained, photos, written, tmp_path):
    query, output = str(photos / "03.png"), str(tmp_path / "search.html")
    assert search.write_page(str(pretrained), [query], written, 3, output) == output
    text = pathlib.Path(output).read_text()
    shown = [part.partition("<")[0] for part in text.split("<br>")[1:]]
    assert shown[:2] == [query, str(photos / SHOWN_COPY)] and query not in shown[1:]
    assert text.count("data:image/jpeg;base64,") == len(shown) == 4
    _, vectors, encoder = embeddings.read(written)
    names = embeddings.read(written).names.tolist()
    cosine = vectors @ vectors[names.index(query)]
    order = [names[row] for row in np.argsort(-cosine, kind="stable")]
    assert shown[2:] == [name for name in order if name != query][1:3]
    assert encoder == moco_tf.load(str(pretrained)).digest


@pytest.mark.parametrize("query", ["no.jpg", "bad.jpg"])
def test_queries_that_are_no_images_are_named(query, pretrained, photos, written):
    with pytest.raises(ValueError, match=rf"Queries must be images?.*{query}'"):
        search.write_page(str(pretrained), [str(photos / query)], written, 3)


def test_another_encoder_s_file_is_refused(pretrained, photos, written, tmp_path):
    other = moco_tf.load(str(pretrained), random_init=True, seed=3).encoder
    other.save(tmp_path / "encoder.keras")
    with pytest.raises(ValueError, match="by another one"):
        search.write_page(str(tmp_path), [str(photos / "03.png")], written, 3)
    with pytest.raises(ValueError, match=r"a file that `embed`.*Received"):
        embeddings.read(str(photos / "03.png"))


def test_groups_are_those_of_single_linkage(monkeypatch):
    monkeypatch.setattr(grouping, "BLOCK", 7)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 6))[rng.integers(0, 12, 60)] + 0.15 * rng.normal(size=(60, 6))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    clusters = sklearn.cluster.AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="single", distance_threshold=0.05
    ).fit_predict(x)
    want = [tuple(np.flatnonzero(clusters == i)) for i in np.unique(clusters)]
    got = [tuple(members) for members in grouping.groups(x, 0.95)]
    assert sorted(got) == sorted(members for members in want if len(members) > 1)
    assert [len(members) for members in got] == sorted(map(len, got), reverse=True)
    assert grouping.groups(np.eye(3, dtype=np.float32), 0.5) == []


def test_duplicates_are_listed_and_shown(photos, written):
    count, path = duplicates.write(written, 0.999999)
    header, *lines = csv.reader(pathlib.Path(path).read_text().splitlines())
    assert count >= 1 and header == ["group", "image", "similarity"]
    numbers = {image: number for number, image, _ in lines}
    assert numbers[str(photos / "03.png")] == numbers[str(photos / SHOWN_COPY)]
    page = pathlib.Path(path.replace(".csv", ".html")).read_text()
    assert page.count("data:image/jpeg") == len(lines) and "raise --threshold" in page


def test_names_are_text_in_a_page(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a & <b>.png")
    text = grouping.row("<i>", [str(tmp_path / "a & <b>.png"), "gone.png"], [1, 0.5])
    assert "a &amp; &lt;b&gt;.png" in text and "&lt;i&gt;" in text and "cannot be read" in text


def test_a_command_without_a_config_can_be_started(written):
    """Commands share flags with train.py only as far as they have them."""
    output = tiny.run([sys.executable, "-m", "moco_tf", "duplicates", written])
    assert output.splitlines()[0].endswith(" groups") and ".duplicates.html" in output


@pytest.mark.slow
def test_the_benchmark_of_copies_runs(pretrained, written, monkeypatch, capsys):
    script = str(tiny.ROOT / "benchmarks" / "copies.py")
    monkeypatch.setattr(sys, "argv", [script, str(pretrained), written])
    runpy.run_path(script, run_name="__main__")
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(rows) == 5
    assert all(-1 <= value <= 1.0001 for row in rows.values() for value in row.values())
