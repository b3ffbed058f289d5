"""The scripts of examples/ run as they stand and are short; the first becomes a notebook."""

import ast
import functools
import json
import pathlib
import runpy

import numpy as np
import pytest
import small_resnet
import tiny

import moco_tf
from moco_tf.backbones import resnet

EXAMPLES = tiny.ROOT / "examples"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Function from the name of an example and its arguments to what it prints."""

    def run(name, *arguments):
        monkeypatch.syspath_prepend(str(EXAMPLES))
        monkeypatch.chdir(tmp_path)
        runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](list(map(str, arguments)))
        return capsys.readouterr().out

    return run


@pytest.fixture
def photos(pretrained):
    """Folder of the images of the shared run, with train/ and test/."""
    source = json.loads((pretrained / "config.json").read_text())["data"]["source"]
    return pathlib.Path(source.removeprefix("folder:")).parent


def test_the_examples_are_short():
    paths = list(EXAMPLES.glob("*.py"))
    assert len(paths) == 4
    for path in paths:
        assert len(path.read_text().splitlines()) <= 90, path


def test_pretrain_fit_writes_an_encoder(run, monkeypatch, photos, tmp_path):
    monkeypatch.setattr(resnet, "resnet18", small_resnet.two_blocks)
    quick = functools.partial(moco_tf.two_views, jit_compile=False)  # compiling takes long
    monkeypatch.setattr(moco_tf, "two_views", quick)
    sizes = ("--batch_size=16", "--image_size_px=16", "--width=4", "--epochs=1")
    text = run("pretrain_fit", f"--images=folder:{photos / 'test'}", *sizes)
    assert text.splitlines()[-1].startswith("encoder.keras: loss ")
    encoder = moco_tf.load(str(tmp_path / "encoder.keras")).encoder
    assert encoder.output_shape == (None, 128)


def test_finetune_writes_a_classifier_and_its_accuracy(run, pretrained, photos, tmp_path):
    folders = (photos / "train", photos / "test")
    text = run("finetune", pretrained, *folders, "--epochs=1", "--batch_size=64", "--frozen")
    accuracy = float(text.split("classifier.keras: ")[1].split("%")[0]) / 100
    assert 0 <= accuracy < 0.9 and "8 classes" in text
    assert (tmp_path / "classifier.keras").exists()


def test_embed_leaves_out_what_cannot_be_decoded(run, pretrained, photos, tmp_path):
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted((photos / "test").rglob("*.png"))[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    assert "3 embeddings of 8 numbers" in run("embed", pretrained, folder)
    with np.load(tmp_path / "embeddings.npz") as saved:
        names, embeddings = saved["names"], saved["embeddings"]
    assert not any("broken" in name for name in names)
    expected = moco_tf.load(str(pretrained)).embed(list(names))
    np.testing.assert_allclose(embeddings, expected, atol=1e-6)


def test_search_prints_the_most_similar_images_first(run, pretrained, photos):
    paths = sorted(str(path) for path in (photos / "test").rglob("*.png"))
    text = run("search", pretrained, paths[0], photos / "test", "--count=4")
    printed = [line.split("  ") for line in text.splitlines()]
    embeddings = moco_tf.load(str(pretrained)).embed(paths)
    similarity = embeddings[1:] @ embeddings[0]
    np.testing.assert_allclose(
        [float(score) for score, _ in printed], np.sort(similarity)[::-1][:4], atol=6e-4
    )
    assert paths[0] not in [name for _, name in printed]


def test_the_notebook_has_the_code_of_the_example():
    pytest.importorskip("jupytext")
    import notebook

    source = (EXAMPLES / "pretrain_fit.py").read_text()
    code = "\n".join(
        line for line in notebook.cells(source).splitlines() if not line.startswith("#")
    )
    names = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    main = next(n for n in ast.parse(source).body if getattr(n, "name", "") == "main")
    used = {node.id for node in ast.walk(main) if isinstance(node, ast.Name)}
    assert used - {"argv", "__doc__"} <= names
    assert "parse_args([])" in code
