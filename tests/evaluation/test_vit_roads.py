"""A run of a vision transformer on the roads of any encoder: evaluations, SavedModel, files."""

import evaluations
import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

import moco_tf
from moco_tf import encoders, vit
from moco_tf.commands import export
from moco_tf.interop import torch_file

VIT = {
    "model__backbone": "vit:vit_small",
    "model__backbone_options": ("depth=1", "num_heads=4", "patch_px=8"),
    "model__width": 16,
    "model__stem": "imagenet",
    "model__bn_group_size": None,
}


@pytest.fixture(scope="module")
def run(pretrained, tmp_path_factory):
    """The workdir of a tiny run of a ViT with 2 x 2 patches."""
    source = f"folder:{pretrained.parent}/data/train"
    workdir = tmp_path_factory.mktemp("vit") / "run"
    assert tiny.pretrain(workdir, **VIT, model__shuffle=False, data__source=source) == 4
    return workdir


def evaluate(task, run, tmp_path, **overrides):
    features_dir = str(tmp_path / "features")
    return evaluations.evaluate(
        task, run, tmp_path / task, data__features_dir=features_dir, **overrides
    )


def test_knn_and_linear_classifiers_on_kept_features(run, tmp_path):
    assert evaluate("knn", run, tmp_path)["metrics"]["top1"]["value"] > 0
    record = evaluate(
        "linear_cached", run, tmp_path, learning_rates=(0.1, 1.0), weight_decays=(0.0,), epochs=2
    )
    assert len(record["details"]["sweep"]) == 2
    classifier = keras.models.load_model(tmp_path / "linear_cached" / "classifier.keras")
    assert classifier(np.zeros((1, 16, 16, 3))).shape == (1, 8)


@pytest.mark.slow
def test_the_linear_protocol_leaves_the_backbone_as_it_is(run, tmp_path):
    short = evaluations.SHORT | {"optimizer__learning_rate": 0.1, "stop_after_steps": 1}
    record = evaluate("linear", run, tmp_path, **short)
    assert record["details"]["backbone_unchanged"]


@pytest.mark.slow
def test_fine_tuning_trains_all_of_it(run, tmp_path):
    short = evaluations.SHORT | {"stop_after_steps": 1}
    evaluate("finetune", run, tmp_path, **short)
    tuned = keras.models.load_model(tmp_path / "finetune" / "classifier.keras")
    (backbone,) = (x for x in tuned.layers if isinstance(x, vit.VisionTransformer))
    before = encoders.load(str(run)).encoder.backbone
    for layer in backbone.layers:
        for new, old in zip(layer.weights, before.get_layer(layer.name).weights, strict=True):
            assert np.any(new.numpy() != old.numpy()), new.path


def test_the_savedmodel_and_the_run_embed_alike(run, tmp_path):
    loaded = moco_tf.load(str(run))
    assert loaded.encoder.backbone.get_config()["num_heads"] == 4
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), np.uint8)
    path = export.export(str(run), "savedmodel", str(tmp_path / "served"))
    served = tf.saved_model.load(path).signatures["embed_images"](tf.constant(images))
    np.testing.assert_allclose(loaded.embed(images), served["embedding"], atol=1e-5)


def test_it_goes_to_torch_and_to_layers_that_keras_loads(run, tmp_path, caplog):
    path = str(tmp_path / "x.pth.tar")
    export.export(str(run), "torch", path)
    content = torch_file.read(path)
    names = content["state_dict"]
    assert names["module.base_encoder.pos_embed"].shape == (1, 5, 16)
    assert {"module.base_encoder.head.2.bias", "module.momentum_encoder.head.0.weight"} <= {*names}
    export.export(str(run), "keras", str(tmp_path / "x.keras"), part="backbone")
    assert "own layers: ClassToken, GELU, SelfAttention" in caplog.text
    copy = keras.models.load_model(tmp_path / "x.keras")
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    want = encoders.load(str(run)).encoder.backbone(x)
    np.testing.assert_allclose(copy(x), want, atol=1e-5)


def test_it_goes_to_onnx(run, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = str(tmp_path / "x.onnx")
    export.export(str(run), "onnx", path)
    x = np.random.default_rng(0).normal(size=(2, 16, 24, 3)).astype(np.float32)
    (features,) = runtime.InferenceSession(path).run(["feature"], {"images": x})
    want = encoders.load(str(run)).encoder.backbone(x)
    np.testing.assert_allclose(features, want, atol=1e-4)
