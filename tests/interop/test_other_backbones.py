"""Backbones that are no ResNets, and encoders in Python, in plain Keras and on empty batches."""

import importlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny
from keras import layers

import moco_tf
from moco_tf import Encoder, encoders, heads, interop, resnet, startup
from moco_tf.commands import export, script
from moco_tf.data.recipes import moco
from moco_tf.detection.model.network import make_network
from moco_tf.interop.plain_keras import plain_keras
from moco_tf.probes import features

OWN_LAYER = """
import keras

@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


def convnet(*middle, channels=3, name="convnet"):
    images = x = keras.Input((None, None, channels))
    for layer in (*middle, layers.Conv2D(4, 3, strides=2), layers.ReLU()):
        x = layer(x)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x), name=name)


def saved(backbone, path, head=None):
    path.mkdir(exist_ok=True)
    Encoder(backbone, head or heads.linear(5)).save(path / "encoder.keras")
    return str(path / "encoder.keras")


@pytest.mark.parametrize("torch_format", ("torch", "torchvision", "mmdetection", "detectron2"))
def test_formats_of_pytorch_need_a_resnet(torch_format, tmp_path):
    """In 0.1.0: tuple.index(x): x not in tuple."""
    path = saved(convnet(), tmp_path)
    output = str(tmp_path / ("x.pkl" if torch_format == "detectron2" else "x.pth"))
    with pytest.raises(ValueError, match="A ResNet( or ViT)? is needed, received convnet"):
        export.export(path, torch_format, output)


def test_a_detector_needs_a_resnet():
    with pytest.raises(ValueError, match="A ResNet is needed, received convnet"):
        make_network(Encoder(convnet()), "fpn", 3)


def test_formats_without_a_head_take_any_head(tmp_path):
    """In 0.1.0: tuple.index(x): x not in tuple."""
    backbone = resnet.ResNet("basic", (1,), width=4, stem="cifar")
    path = saved(backbone, tmp_path, layers.Dense(5, name="projection"))
    export.export(path, "torchvision", str(tmp_path / "x.pth"))
    with pytest.raises(ValueError, match=r"head must be `heads.linear`, `heads.mlp` or"):
        export.export(path, "torch", str(tmp_path / "y.pth"))


def test_an_onnx_file_that_cannot_be_run_is_refused(tmp_path):
    """In 0.1.0 EfficientNet's was written, and two constants of it were required inputs."""
    normalization = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])
    output = tmp_path / "x.onnx"
    with pytest.raises(ValueError, match=r"from images alone. Received from tf2onnx: the inputs"):
        interop.export_onnx(Encoder(convnet(normalization), heads.linear(5)), str(output))
    assert not output.exists()


def test_thirteen_channels_go_to_onnx_and_are_refused_where_images_are_read(tmp_path):
    """In 0.1.0 all of it ended in a shape error, after the data had been read."""
    path = saved(convnet(channels=13), tmp_path)
    loaded = encoders.load(path)
    for use in (encoders.preprocessing, encoders.recipe_of):
        with pytest.raises(ValueError, match="takes 13 channels, images have 3"):
            use(loaded)
    with pytest.raises(ValueError, match="takes 13 channels, images have 3"):
        export.export(path, "savedmodel", str(tmp_path / "served"))
    with pytest.raises(ValueError, match="takes 13 channels, images have 3"):
        features.forward(loaded.encoder, moco.v2, tf.distribute.get_strategy())
    export.export(path, "onnx", str(tmp_path / "x.onnx"))


def test_a_layer_of_ones_own_is_imported_or_named(tmp_path, monkeypatch):
    (tmp_path / "my_layers.py").write_text(OWN_LAYER)
    monkeypatch.syspath_prepend(tmp_path)
    path = saved(convnet(importlib.import_module("my_layers").Doubled()), tmp_path / "run")
    own = keras.saving.get_custom_objects()
    monkeypatch.delitem(own, "tests>Doubled")
    monkeypatch.delitem(sys.modules, "my_layers")
    with pytest.raises(ValueError, match=r"layer of your own, Doubled.*--import=MODULE"):
        encoders.load(path)
    script._import(["my_layers"])
    assert encoders.load(path).encoder.backbone.name == "convnet"
    with pytest.raises(ValueError, match="must name modules.*no_such_module.*PYTHONPATH"):
        script._import(["no_such_module"])


def test_a_backbone_loads_in_keras_without_this_package(tmp_path):
    keras.utils.set_random_seed(0)
    backbone = resnet.ResNet("bottleneck", (1, 1), width=4, stem="imagenet", bn_group_size=2)
    for variable in backbone.non_trainable_variables:  # statistics that are not ones and zeros
        variable.assign(variable + keras.random.uniform(variable.shape, 0, 0.5, seed=1))
    plain_keras(backbone).save(tmp_path / "backbone.keras")
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    np.savez(tmp_path / "case.npz", x=x, want=backbone(x, training=False))
    program = """
import sys, keras, numpy as np
case = np.load("case.npz")
got = keras.models.load_model("backbone.keras")(case["x"], training=False)
assert "moco_tf" not in sys.modules
print(float(np.abs(got - case["want"]).max() / np.abs(case["want"]).max()))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1e-5


def test_a_copy_that_computes_something_else_is_refused():
    backbone = resnet.ResNet("basic", (1,), width=4, stem="cifar")
    copy = plain_keras(backbone)
    copy.layers[1].set_weights([2 * w for w in copy.layers[1].get_weights()])
    with pytest.raises(ValueError, match="must compute the same features"):
        importlib.import_module("moco_tf.interop.plain_keras")._require_equal(copy, backbone)


def test_another_backend_of_keras_is_refused_by_name(monkeypatch):
    """In 0.1.0: KeyError: 'parameter name can't contain "."'."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ImportError, match=r"TensorFlow backend. Received: torch. Set KERAS_BACK"):
        startup._start()


def test_a_run_embeds_files_and_arrays_as_its_savedmodel(pretrained, tmp_path, caplog):
    config = json.loads((pretrained / "config.json").read_text())
    folder = config["data"]["source"].partition(":")[2]
    files = sorted(map(str, tiny.pathlib.Path(folder).rglob("*.png")))[:5]
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    loaded = moco_tf.load(str(pretrained))
    got = loaded.embed([*files, str(tmp_path / "bad.jpg")], batch_size=4)
    path = export.export(str(pretrained), "savedmodel", str(tmp_path / "served"))
    served = tf.saved_model.load(path).signatures
    contents = [tiny.pathlib.Path(file).read_bytes() for file in files]
    want = served["embed_bytes"](tf.constant(contents))["embedding"].numpy()
    np.testing.assert_allclose(got[:-1], want, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got[:-1], axis=1), 1, rtol=1e-5)
    assert not got[-1].any() and "bad.jpg cannot be decoded" in caplog.text
    for path, reason in ((tmp_path / "no.jpg", "which does not exist"), (tmp_path, "a folder")):
        with pytest.raises(FileNotFoundError, match=rf"`images` must be .*{path}', {reason}"):
            loaded.embed([path])
    images = np.stack([tf.io.decode_png(content).numpy() for content in contents])
    np.testing.assert_allclose(loaded.embed(images), want, atol=1e-5)
    assert loaded.embed([]).shape == (0, want.shape[1])
    for wrong, message in ((files[0], "a list of paths"), (images / 255, "must be uint8")):
        with pytest.raises(ValueError, match=message):
            loaded.embed(wrong)
    empty = {
        "embed_bytes": tf.constant([], tf.string),
        "embed_images": np.zeros((0, 20, 20, 3), np.uint8),
        "embed_tensors": np.zeros((0, 16, 16, 3), np.float32),
    }
    for name, batch in empty.items():  # in 0.1.0: "input depth must be evenly divisible"
        outputs = served[name](tf.constant(batch))
        assert outputs["embedding"].shape == (0, want.shape[1])
        assert all(len(value) == 0 for value in outputs.values())
