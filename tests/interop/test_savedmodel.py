"""The SavedModel: its loader in C, its signatures, what they answer to good and bad images."""

import io
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import serving
import tensorflow as tf
from google.protobuf import text_format
from pictures import announcing, encode, random_image
from PIL import Image
from small_resnet import four_stages

from moco_tf import encoders, interop
from moco_tf.backbones import heads
from moco_tf.backbones.encoder import Encoder
from moco_tf.commands import export
from moco_tf.data.image_ops import resize_and_center_crop
from moco_tf.data.recipes import moco
from moco_tf.evaluation import classification
from moco_tf.interop import serving_graph

SIZE, RESIZE, DIM, CLASSES = 32, 40, 16, 3
RGB = Image.fromarray(random_image(0, 70, 53))
TURNED = Image.Exif()
TURNED[0x0112] = 6

GOOD = {
    "jpeg": encode(RGB, "JPEG"),
    "png": encode(RGB, "PNG"),
    "webp": encode(RGB, "WEBP", lossless=True),
    "gray": encode(RGB.convert("L"), "JPEG"),
    "cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    "16 bits": encode(Image.fromarray(np.asarray(RGB)[..., 0].astype(np.uint16) * 257), "PNG"),
    "1x1": encode(RGB.crop((5, 5, 6, 6)), "PNG"),
    "thin": encode(RGB.resize((1, 3000)), "PNG"),
}
OTHERS = (  # which tests of decoding compare with PIL
    encode(RGB, "JPEG", progressive=True),
    encode(RGB, "JPEG", exif=TURNED),
    encode(RGB.convert("RGBA"), "PNG"),
    encode(RGB.quantize(64), "PNG"),
    encode(RGB.quantize(64), "GIF"),
)
BAD = {
    "text": b"not an image",
    "empty": b"",
    "cut": GOOD["jpeg"][:500],
    "animated": encode(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)]),
    "tiff": encode(RGB, "TIFF"),
    "9000x9000": announcing("JPEG", 9000, 9000),
}


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    model = Encoder(four_stages(8, "cifar"), heads.mlp(DIM))
    for variable in model.non_trainable_variables:  # statistics that are not ones and zeros
        variable.assign(variable + keras.random.uniform(variable.shape, 0, 0.5, seed=1))
    return model


@pytest.fixture(scope="module")
def crop():
    return encoders.Preprocessing(moco.v2, SIZE, RESIZE)


@pytest.fixture(scope="module")
def classifier():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, CLASSES)).astype(np.float32)
    return weights, rng.normal(size=CLASSES).astype(np.float32), ["cat", "dog", "Häher"]


@pytest.fixture(scope="module")
def exported(encoder, crop, classifier, tmp_path_factory):
    root = tmp_path_factory.mktemp("served") / "moco"
    metadata = {"checkpoint": {"sha256": "abc"}}
    options = dict(classifier=classifier, metadata=metadata)
    return pathlib.Path(interop.export_savedmodel(encoder, str(root), crop, **options))


@pytest.fixture(scope="module")
def served(exported):
    return tf.saved_model.load(str(exported)).signatures


def answer(signature, value):
    name = next(iter(signature.structured_input_signature[1]))
    return {k: v.numpy() for k, v in signature(**{name: tf.constant(value)}).items()}


def wanted(encoder, content):
    """Features and embedding of an image, by PIL and the encoder."""
    image = Image.open(io.BytesIO(content))
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    image = image.convert("RGB")
    scale = RESIZE / min(image.size)
    size = [int(scale * length) for length in image.size]
    left, top = (round((length - SIZE) / 2) for length in size)
    box = (left, top, left + SIZE, top + SIZE)
    x = np.asarray(image.resize(size, Image.Resampling.BILINEAR).crop(box), np.float32) / 255
    x = (x - moco.v2.mean) / np.array(moco.v2.std)
    x = x[None].astype(np.float32)
    embedding = encoder(x).numpy()[0]
    return encoder.backbone(x).numpy()[0], embedding / np.linalg.norm(embedding)


@pytest.mark.parametrize("name", GOOD)
def test_bytes_are_embedded_as_pil_and_the_encoder_do(name, served, encoder):
    outputs = answer(served["embed_bytes"], [GOOD[name]])
    feature, embedding = wanted(encoder, GOOD[name])
    # The resize may differ by 1/255, which the network carries on.
    np.testing.assert_allclose(outputs["feature"][0], feature, atol=0.02)
    np.testing.assert_allclose(outputs["embedding"][0], embedding, atol=0.02)
    assert outputs["ok"].tolist() == [True]


@pytest.mark.parametrize("name", ["serving_default", "embed_bytes"])
def test_bad_images_do_not_fail_the_others(name, served):
    contents = [*BAD.values(), *GOOD.values(), *OTHERS, *BAD.values()]
    outputs = answer(served[name], contents)
    good = np.array([content not in BAD.values() for content in contents])
    np.testing.assert_array_equal(outputs["ok"], good)
    for row, content in enumerate(contents):
        alone = answer(served[name], [content])
        for output in ("embedding", "feature"):
            np.testing.assert_allclose(outputs[output][row], alone[output][0], atol=1e-5)
    assert not outputs["embedding"][~good].any() and not outputs["feature"][~good].any()
    np.testing.assert_allclose(np.linalg.norm(outputs["embedding"][good], axis=1), 1, rtol=1e-5)


def test_the_three_inputs_agree(served, crop):
    pixels = np.asarray(RGB)
    by_bytes = answer(served["embed_bytes"], [GOOD["png"]] * 2)
    by_images = answer(served["embed_images"], np.stack([pixels, pixels]))
    cropped = resize_and_center_crop(tf.constant(pixels), crop.resize_px, crop.image_size_px)
    prepared = crop.recipe.normalize(tf.cast(cropped, tf.float32) / 255).numpy()
    by_tensors = answer(served["embed_tensors"], np.stack([prepared, prepared]))
    for other in (by_images, by_tensors):
        assert set(other) == {"embedding", "feature"}
        for name in other:
            np.testing.assert_allclose(other[name], by_bytes[name], atol=1e-5)
    assert answer(served["embed_images"], pixels[None, :1, :1])["embedding"].shape == (1, DIM)


def test_class_scores(served, classifier):
    weights, bias, names = classifier
    contents = [GOOD["jpeg"], BAD["text"], GOOD["gray"]]
    features = answer(served["embed_bytes"], contents)["feature"]
    outputs = answer(served["classify_bytes"], contents)
    want = classification.softmax(features @ weights + bias)
    want[1] = 0
    np.testing.assert_allclose(outputs["scores"], want, atol=1e-5)
    labels = [names[i] for i in want.argmax(axis=1)]
    labels[1] = ""
    assert [label.decode() for label in outputs["label"]] == labels
    assert outputs["ok"].tolist() == [True, False, True]


def test_the_graph_needs_neither_python_nor_other_ops(exported):
    ops, functions = serving.ops_of(exported)
    assert {"DecodeJpeg", "IgnoreErrorsDataset"} <= ops
    assert not {op for op in ops if "Py" in op or "Numpy" in op or "Generator" in op}
    program = "import sys, tensorflow; from tensorflow.python.framework import op_def_registry as r"
    program += "; print([op for op in sys.argv[1:] if r.get(op) is None])"
    command = [sys.executable, "-c", program, *sorted(ops - functions)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_versions_samples_and_metadata(encoder, crop, exported, tmp_path):
    assert exported.name == "1"
    assert json.loads((exported / "assets" / "metadata.json").read_text()) == {
        "checkpoint": {"sha256": "abc"}
    }
    for kept in ("3", "12", "notes"):
        (tmp_path / kept).mkdir()
    path = interop.export_savedmodel(encoder, str(tmp_path), crop)
    assert path == str(tmp_path / "13")
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"3", "12", "13", "notes", "models.config", "batching.config"}

    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    text = (tmp_path / "models.config").read_text()
    server = text_format.Parse(text, config.ModelServerConfig())
    (model,) = server.model_config_list.config
    assert (model.name, model.base_path) == ("moco", str(tmp_path))
    sizes = [
        int(line.partition(":")[2])
        for line in (tmp_path / "batching.config").read_text().splitlines()
        if line.startswith("allowed_batch_sizes")
    ]
    assert sizes == sorted(sizes) and sizes[-1] == 32


def test_warm_up_requests_are_answered(exported, served):
    asked = set()
    for signature, inputs in serving.warmup_requests(exported):
        asked.add(signature)
        (value,) = inputs.values()
        outputs = served[signature](**{name: tf.constant(x) for name, x in inputs.items()})
        assert all(len(output) == len(value) for output in outputs.values())
        assert "ok" not in outputs or outputs["ok"].numpy().all()
    assert asked == set(served)


@pytest.mark.slow
def test_the_command_line_of_tensorflow_runs_it(exported, tmp_path):
    np.save(tmp_path / "x.npy", np.asarray(RGB)[None])
    command = [pathlib.Path(sys.executable).parent / "saved_model_cli", "run", "--dir", exported]
    command += ["--tag_set", "serve", "--signature_def", "embed_images"]
    command += ["--inputs", f"images={tmp_path / 'x.npy'}", "--outdir", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    assert np.load(tmp_path / "embedding.npy").shape == (1, DIM)


@pytest.mark.slow
def test_it_is_loaded_and_loaded_on_without_python(exported, served, tmp_path):
    contents = {**GOOD, **BAD}
    paths = [tmp_path / name for name in contents]
    for path, content in zip(paths, contents.values()):
        path.write_bytes(content)
    outputs = serving.run_c_client(exported, paths, threads=8, requests=200)
    want = answer(served["serving_default"], list(contents.values()))
    for file, embedding, ok in zip(outputs["files"], want["embedding"], want["ok"]):
        np.testing.assert_allclose(file["embedding"], embedding, atol=1e-5)
        assert file["ok"] == ok
    assert (outputs["requests"], outputs["wrong"]) == (1600, 0)
    assert outputs["memory"] < 1.05 * outputs["memory_early"], outputs["memory"]


@pytest.mark.parametrize(
    "variant, tolerance",
    [("bfloat16", 1e-2), pytest.param("jit_compile", 1e-4, marks=pytest.mark.slow)],
)
def test_variants_stay_close(variant, tolerance, encoder, crop, served, tmp_path):
    path = interop.export_savedmodel(encoder, str(tmp_path), crop, **{variant: True})
    other = tf.saved_model.load(path).signatures["serving_default"]
    contents = list(GOOD.values())[:3]
    got, want = answer(other, contents), answer(served["serving_default"], contents)
    np.testing.assert_allclose(got["embedding"], want["embedding"], atol=tolerance)
    assert np.abs(got["embedding"] - want["embedding"]).max() > 0


def test_a_variant_that_does_not_hold_is_refused(encoder, crop, tmp_path, monkeypatch):
    honest = serving_graph.features_and_embeddings
    monkeypatch.setattr(
        serving_graph,
        "features_and_embeddings",
        lambda network, x: [
            y + 0.02 * network.name.endswith("bfloat16") for y in honest(network, x)
        ],
    )
    monkeypatch.setattr(
        "moco_tf.interop.savedmodel.with_policy",
        lambda network, policy: keras.Model(network.input, network.outputs, name=policy),
    )
    with pytest.raises(ValueError, match=r"within 0.01 of those in float32. Received: 0.02"):
        interop.export_savedmodel(encoder, str(tmp_path), crop, bfloat16=True)
    assert not list(tmp_path.iterdir())


def test_a_classifier_of_another_encoder_is_refused(encoder, tmp_path):
    encoder.save(tmp_path / "encoder.keras")
    with pytest.raises(ValueError, match="workdir of a finished linear, linear_cached or finetune"):
        export.export(
            str(tmp_path / "encoder.keras"),
            "savedmodel",
            str(tmp_path / "out"),
            classifier=str(tmp_path),
        )
    assert not (tmp_path / "out").exists()
