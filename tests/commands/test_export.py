"""A run taken elsewhere by the commands, and embeddings asked for over the network."""

import functools
import json
import pathlib
import shutil
import socket
import sys
import zipfile

import evaluations
import keras
import numpy as np
import pytest
import serving
import tensorflow as tf
import tiny
from PIL import Image

from moco_tf import encoders
from moco_tf.commands import client, export
from moco_tf.data.recipes.recipe import CIFAR10
from moco_tf.data.sources import synthetic
from moco_tf.evaluation.classification import Classification
from moco_tf.evaluation.embedding_parts import joined

SAMPLES = tiny.DATA / "imagenet_sample"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images, of which one is bad."""
    root = tmp_path_factory.mktemp("images")
    for i, image in enumerate(synthetic.shapes(11, seed=0)[0]):
        Image.fromarray(image).save(root / f"{i:02}.png")
    (root / "05a.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def exported(pretrained, tmp_path_factory):
    """A folder of versions, made by the command."""
    output = tmp_path_factory.mktemp("exported") / "moco"
    command("export", f"--checkpoint={pretrained}", "--format=savedmodel", f"--output={output}")
    return output


def command(name, *arguments, code=0):
    return tiny.run([sys.executable, "-m", "moco_tf", name, *map(str, arguments)], code)


def test_a_run_is_served_to_c_and_to_clients_of_both_protocols(exported, folder, tmp_path):
    metadata = json.loads((exported / "1" / "assets" / "metadata.json").read_text())
    assert metadata["preprocessing"]["image_size_px"] == 16
    assert metadata["config"]["model"]["dim"] == 8 and len(metadata["checkpoint"]["sha256"]) == 64
    paths = sorted(folder.iterdir())
    in_c = serving.run_c_client(exported / "1", paths)["files"]
    servers = {"grpc": serving.grpc_server, "rest": serving.rest_server}
    for protocol, serve in servers.items():
        with serve(exported, failures=2) as (address, model):
            output = command(
                "client",
                f"--server={address}",
                f"--protocol={protocol}",
                f"--output={tmp_path}/x.npz",
                "--batch=5",
                folder,
            )
            assert model.requests == 3 + 2
        assert "12 of 12 embeddings of 8 numbers" in output and "1 cannot be decoded" in output
        outputs = np.load(tmp_path / "x.npz")
        assert outputs["name"].tolist() == list(map(str, paths))
        assert outputs["ok"].tolist() == [p.name != "05a.png" for p in paths]
        assert outputs["feature"].dtype == outputs["embedding"].dtype == np.float32
        want = [file["embedding"] for file in in_c]
        np.testing.assert_allclose(outputs["embedding"], want, atol=1e-5)


@pytest.mark.skipif(not SAMPLES.exists(), reason="needs the ImageNet sample beside the project")
def test_real_photos_are_embedded_alike_by_c_and_the_client(exported):
    paths = sorted(map(str, SAMPLES.glob("*.JPEG")))
    assert len(paths) == 100
    with serving.grpc_server(exported) as (address, _):
        outputs = joined(list(client.embed_files(client.Grpc(address), paths)))
    assert outputs["ok"].all()
    want = serving.run_c_client(exported / "1", paths)["files"]
    np.testing.assert_allclose(outputs["embedding"], [f["embedding"] for f in want], atol=1e-5)
    assert len(np.unique(outputs["embedding"].round(3), axis=0)) > 90


@pytest.mark.parametrize("kind", [client.Grpc, client.Rest])
def test_a_client_says_why_it_got_no_answer(kind, exported, monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"server {address} must answer.*Does it run"):
            kind(address, deadline_s=5.0, attempts=2).embed([b"x"])
    serve = serving.grpc_server if kind is client.Grpc else serving.rest_server
    with serve(exported) as (address, model):
        with pytest.raises(ConnectionError, match="Servable not found"):
            kind(address, model="other").embed([b"x"])
        contents = [bytes(synthetic.shapes(1, seed=0)[0])]
        assert not kind(address).embed(contents)["ok"].any()
        monkeypatch.setattr(model, "answer", lambda *_: {"scores": np.ones(1)})
        with pytest.raises(ConnectionError, match="must answer with embeddings.*scores"):
            kind(address).embed([b"x"])
        model.failures = 99
        with pytest.raises(ConnectionError, match="UNAVAILABLE|503"):
            kind(address, attempts=2).embed([b"x"])
        assert model.requests == 4


def test_what_was_embedded_before_an_error_is_kept(exported, folder, tmp_path):
    with serving.grpc_server(exported) as (address, model):
        answers = iter([False])  # the first request is answered, no other
        counted = model.fails
        model.fails = lambda: next(answers, True)
        flags = [f"--server={address}", f"--output={tmp_path}/new/x.npz", "--batch=5"]
        output = command("client", *flags, "--attempts=1", folder, code=1)
        assert "still loading" in output and not (tmp_path / "new" / "x.npz").exists()
        model.requests, model.failures, model.fails = 0, 0, counted
        output = command("client", *flags, folder)
    assert "12 of 12 embeddings" in output and model.requests == 2  # the first 5 are kept
    assert len(np.load(tmp_path / "new" / "x.npz")["name"]) == 12
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.npz"]


def test_images_are_named_by_files_folders_and_globs(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "sub")
    (tmp_path / "a[1].png").write_bytes(b"")
    assert client.files_of([str(tmp_path / "a[1].png")]) == [str(tmp_path / "a[1].png")]
    assert len(client.files_of([str(tmp_path / "*")])) == 13
    assert len(client.files_of([str(tmp_path / "sub" / "0*.png")])) == 11


CLASSIFIERS = {
    "linear_cached": {"epochs": 3, "learning_rates": (1.0,), "weight_decays": (0.0,)},
    "finetune": {**evaluations.SHORT, "head_factor": 10.0},
}


@pytest.fixture(scope="module")
def evaluated(pretrained, tmp_path_factory):
    """`evaluated(task)`: the workdir of an evaluation, of another size and normalization."""
    root = tmp_path_factory.mktemp("evaluated")
    images = {"image_size_px": 24, "resize_px": 30, "recipe": "moco:cifar10"}
    images = {f"data__{name}": value for name, value in images.items()}

    @functools.cache
    def workdir(task):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Classification, "report", lambda task, record: None)  # for speed
            evaluations.evaluate(task, pretrained, root / task, **CLASSIFIERS[task], **images)
        return root / task

    return workdir


@pytest.mark.parametrize(
    "task", ["linear_cached", pytest.param("finetune", marks=pytest.mark.slow)]
)
def test_a_served_classifier_is_as_good_as_its_evaluation(task, evaluated, pretrained, tmp_path):
    workdir = evaluated(task)
    checkpoint, options = (
        (workdir, {}) if task == "finetune" else (pretrained, {"classifier": str(workdir)})
    )
    path = export.export(str(checkpoint), "savedmodel", str(tmp_path / "out"), **options)
    signatures = tf.saved_model.load(path).signatures
    default = "classify_bytes" if task == "finetune" else "embed_bytes"
    outputs = signatures[default].structured_outputs.keys()
    assert signatures["serving_default"].structured_outputs.keys() == outputs

    files = sorted((pretrained.parent / "data" / "test").glob("*/*.png"))
    contents = tf.constant([file.read_bytes() for file in files])
    answer = signatures["classify_bytes"](image_bytes=contents)
    predicted = [name.decode() for name in answer["label"].numpy()]
    hits = [name == file.parent.name for name, file in zip(predicted, files, strict=True)]
    record = json.loads((workdir / "results.json").read_text())
    assert np.mean(hits) == record["metrics"]["top1"]["value"]
    # The same by PIL and the saved network.
    network = keras.models.load_model(workdir / "classifier.keras")
    for file, scores in zip(files[:5], answer["scores"].numpy()):
        image = Image.open(file).resize((30, 30), Image.Resampling.BILINEAR).crop((3, 3, 27, 27))
        x = (np.asarray(image, np.float32) / 255 - CIFAR10["mean"]) / CIFAR10["std"]
        want = tf.nn.softmax(network(x[None].astype(np.float32)))[0]
        np.testing.assert_allclose(scores, want, atol=0.01)

    metadata = json.loads((pathlib.Path(path) / "assets" / "metadata.json").read_text())
    sizes = {name: metadata["preprocessing"][name] for name in ("image_size_px", "resize_px")}
    assert sizes == {"image_size_px": 24, "resize_px": 30}
    assert metadata["classes"] == sorted({file.parent.name for file in files})


def test_a_classifier_is_served_by_its_workdir_and_as_it_was_tested(
    evaluated, pretrained, tmp_path
):
    workdir, output = evaluated("linear_cached"), str(tmp_path / "out")
    with pytest.raises(ValueError, match="fc. To export a classifier, name the workdir of its ev"):
        export.export(str(workdir / "classifier.keras"), "savedmodel", output)
    options = {"classifier": str(workdir), "image_size_px": 24}
    with pytest.raises(ValueError, match="as in its evaluation's test. Received: image_size_px=24"):
        export.export(str(pretrained), "savedmodel", output, **options)
    tuned = tmp_path / "tuned"
    shutil.copytree(workdir, tuned)
    network = keras.models.load_model(tuned / "classifier.keras")
    kernel = network.layers[1].trainable_variables[0]
    kernel.assign(kernel + 1)
    network.save(tuned / "classifier.keras")
    with pytest.raises(ValueError, match="fine-tuned, export it by itself: --checkpoint=.*tune"):
        export.export(str(pretrained), "savedmodel", output, classifier=str(tuned))
    old = tmp_path / "old"
    shutil.copytree(workdir, old)
    record = json.loads((old / "results.json").read_text())
    del record["preprocessing"]
    (old / "results.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="written by another version. Run the evaluation again"):
        export.export(str(old), "savedmodel", output)
    assert not (tmp_path / "out").exists()


def test_keras_and_onnx_files(pretrained, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    encoder = encoders.load(str(pretrained)).encoder
    x = np.random.default_rng(0).normal(size=(3, 24, 17, 3)).astype(np.float32)
    backbone = encoder.backbone(x).numpy()
    embedding = encoder(x).numpy()
    paths = {part: str(tmp_path / f"{part}.keras") for part in ("backbone", "encoder")}
    for part, path in paths.items():
        export.export(str(pretrained), "keras", path, part)
    for part, want in (("backbone", backbone), ("encoder", embedding)):
        got = keras.models.load_model(paths[part])(x)
        np.testing.assert_allclose(got, want, atol=1e-6)
        # Keras alone loads what names no layer of the package.
        content = zipfile.ZipFile(paths[part]).read("config.json")
        assert (b"moco_tf" in content) == (part == "encoder")
    path = str(tmp_path / "a.onnx")
    export.export(str(pretrained), "onnx", path)
    session = runtime.InferenceSession(path)
    feature, unit = session.run(["feature", "embedding"], {"images": x})
    np.testing.assert_allclose(feature, backbone, atol=1e-4)
    want = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, want, atol=1e-4)


@pytest.mark.parametrize(
    "name, flags, message",
    [
        ("export", ["--format=onnx", "--output={}/a.pb"], "file with the extension .onnx"),
        ("export", ["--format=keras", "--output={}/a.keras", "--bfloat16"], "--format=savedmodel"),
        ("export", ["--format=onnx", "--output={}/a.onnx", "--part=backbone"], "--format=keras"),
        ("export", ["--format=pdf", "--output={}/a.pdf"], "should be one of"),
        ("export", ["--format=keras"], "`--output` must be given, as in export"),
        ("export", ["--format=savedmodel", "--output={}/a", "--resize_px=8"], "at least the image"),
        ("import_torch", ["--output={}/new"], "Name one file"),
        ("import_torch", ["{}/none.pth", "--output={}/new"], "file to import must exist"),
        ("client", ["--server=127.0.0.1:1"], "Name images"),
        ("client", ["--server=127.0.0.1:1", "{}/none.jpg"], "file, folder or glob"),
    ],
)
def test_a_users_mistake_ends_in_a_message(name, flags, message, pretrained, tmp_path):
    flags = [flag.format(tmp_path) for flag in flags]
    flags += [f"--checkpoint={pretrained}"] if name == "export" else []
    output = command(name, *flags, code=1)
    assert message in output and "Traceback" not in output
    assert not list(tmp_path.iterdir())
