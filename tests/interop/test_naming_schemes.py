"""How others name MoCo's weights, read and written."""

import pickle
import re

import keras
import numpy as np
import pytest

from moco_tf import encoders, interop
from moco_tf.interop import naming_schemes, torch_file, training_state

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
import torch_peer as peer  # noqa: E402

CHILDREN = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(i + 3) for i in range(1, 5)}}


def numbered(name):
    """Of "fc.weight" and "fc.2.weight" what a sequence of layers calls them."""
    return name[3:] if name[3].isdigit() else f"0.{name[3:]}"


def lightly(name):
    part, _, rest = name.partition(".")
    momentum = "_momentum" if part == "encoder_k" else ""
    if rest.startswith("fc"):
        return f"projection_head{momentum}.layers.{numbered(rest)}"
    child, _, rest = rest.partition(".")
    return f"backbone{momentum}.{CHILDREN[child]}.{rest}"


def solo_learn(name):
    part, _, rest = name.partition(".")
    momentum = "momentum_" if part == "encoder_k" else ""
    return f"{momentum}projector.{rest[3:]}" if "fc" in rest else f"{momentum}backbone.{rest}"


def mmselfsup(name):
    part, _, rest = name.partition(".")
    if "fc" in rest:
        return f"{part}.1.mlp.{rest[3:]}" if rest[3].isdigit() else f"{part}.1.{rest}"
    return f"{part}.0.{rest}"


def mmpretrain(name):
    part, _, rest = name.partition(".")
    if "fc" in rest:
        head = f"mlp.{rest[3:]}" if rest[3].isdigit() else rest
        return f"encoder_k.module.1.{head}" if part == "encoder_k" else f"neck.{head}"
    return f"encoder_k.module.0.{rest}" if part == "encoder_k" else f"backbone.{rest}"


@pytest.mark.parametrize(
    "rename, version",
    [
        *((rename, "v2") for rename in (lightly, solo_learn, mmselfsup, mmpretrain)),
        *((rename, "v1") for rename in (lightly, mmselfsup, mmpretrain)),
    ],
)
def test_other_implementations_are_read(rename, version, tmp_path):
    model = peer.make_moco(version=version).eval()
    tensors = {
        rename(n) if n.startswith("encoder") else n: v for n, v in model.state_dict().items()
    }
    if rename is lightly:
        tensors = {k: v for k, v in tensors.items() if "queue" not in k}
        tensors["criterion.cross_entropy.weight"] = torch.ones(1)
    if rename is solo_learn:
        tensors["queue"] = torch.stack([tensors["queue"], tensors["queue"] * 0])
        tensors["classifier.weight"] = torch.ones(10, 64)
    if rename is mmselfsup:
        tensors |= {f"backbone.{k}": v for k, v in model.encoder_q.state_dict().items()}
    if rename is mmpretrain:
        tensors["encoder_k.steps"] = torch.tensor(0)
        tensors["data_preprocessor.mean"] = torch.ones(3)
    path = str(tmp_path / "a.ckpt")
    torch.save({"state_dict": tensors}, path)
    state = naming_schemes.parse(torch_file.read(path))
    assert state.scheme.replace("-", "_") == rename.__name__
    for letter, part in (("q", state.query), ("k", state.key)):
        want = getattr(model, f"encoder_{letter}").state_dict()
        assert part.keys() == {n for n in want if not n.endswith("num_batches_tracked")}
        for name, array in part.items():
            np.testing.assert_array_equal(array, want[name].numpy())
    imported = interop.import_torch(path, str(tmp_path / "run"))
    ours = training_state.restored(str(tmp_path / "run"), imported.config)
    if rename is lightly:
        np.testing.assert_allclose(np.linalg.norm(ours.queue, axis=1), 1, rtol=1e-5)
    else:
        np.testing.assert_array_equal(ours.queue.numpy().T, model.queue.numpy())


def test_a_resnet_of_torchvision_and_a_linear_classifier_are_encoders(tmp_path):
    torch.manual_seed(0)
    classifier = peer.randomized(peer.resnet("50", lambda c: torch.nn.Linear(c, 10), 8)).eval()
    x = peer.images(2, 40, 40, 3)
    with torch.no_grad():
        want = classifier(peer.torch_images(x))
    for i, saved in enumerate(
        (
            classifier.state_dict(),  # torchvision's
            {"state_dict": {f"module.{k}": v for k, v in classifier.state_dict().items()}},
        )
    ):
        path = str(tmp_path / f"{i}.pth")
        torch.save(saved, path)
        imported = interop.import_torch(path, str(tmp_path / str(i)))
        assert imported.config is None and imported.scheme == "torchvision"
        loaded = encoders.load(str(tmp_path / str(i)))
        np.testing.assert_allclose(loaded.encoder(x), want, atol=1e-4, rtol=1e-4)
    # without a classifier, and as the backbone of something else
    for i, prefix in ((2, ""), (3, "backbone.")):
        path = str(tmp_path / f"{i}.pth")
        bare = {f"{prefix}{k}": v for k, v in classifier.state_dict().items() if "fc" not in k}
        torch.save(bare, path)
        encoder = encoders.load(path).encoder
        with torch.no_grad():
            features = classifier.features(peer.torch_images(x))
        np.testing.assert_allclose(encoder(x), features, atol=1e-4, rtol=1e-4)


def changed(change):
    saved = peer.official(peer.make_moco())
    change(saved["state_dict"])
    return saved


def without(*names):
    return lambda s: [s.pop(f"module.encoder_q.{name}") for name in names]


def with_(name, *shape):
    return lambda s: s.update({name: torch.zeros(shape)})


@pytest.mark.parametrize(
    "change, message",
    [
        (
            without("bn1.weight", "layer1.0.conv1.weight"),
            "2 missing, such as bn1.weight, layer1.0.conv1.weight.* incomplete",
        ),
        (
            with_("module.encoder_q.fc.1.running_mean", 4),
            "1 unexpected, such as fc.1.running_mean.*batch normalization",
        ),
        (with_("module.encoder_q.conv1.bias", 8), "1 unexpected.*convolutions have a bias"),
        (
            with_("module.encoder_q.layer2.0.bn1.weight", 3),
            r"1 of another shape, such as layer2.0.bn1.weight: \(3,\) instead of \(16,\)",
        ),
        (with_("module.encoder_q.layer1.2.conv1.weight", 8, 8, 3, 3), r"must be one of resnet:"),
        (
            with_("module.decoder.weight", 4),
            "of the official MoCo .*other names.*decoder.weight",
        ),
        (without("layer1.0.conv2.weight"), "torchvision's layers.*a ViT of MoCo v3"),
        (lambda s: (s.clear(), s.update({"blocks.0.attn": torch.ones(1)})), "names in a PyTorch"),
        (lambda s: s.clear(), "must be a state dict"),
        (with_("module.encoder_k.bn1.weight", 3), "The key encoder must have.*1 of another shape"),
        (with_("module.queue", 16), "queue must be finite numbers, DxK"),
        (
            lambda s: s.update({"module.queue_ptr": torch.tensor([999])}),
            "below 256. Received: .999",
        ),
        (with_("module.encoder_q.conv1.weight", 8), "torchvision's layers"),
        (with_("module.encoder_q.fc.2.weight"), "must be of linear layers"),
    ],
)
def test_other_models_are_refused_with_the_likely_cause(change, message, tmp_path):
    path = str(tmp_path / "a.pth")
    torch.save(changed(change), path)
    with pytest.raises(ValueError, match=re.compile(message, re.S)):
        interop.import_torch(path, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "config.json").exists()


def test_an_import_that_fails_leaves_no_run(tmp_path, monkeypatch):
    path, run = str(tmp_path / "a.pth"), tmp_path / "run"
    torch.save(peer.official(peer.make_moco()), path)

    def fail(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("moco_tf.training.checkpoint.claim_workdir", fail)
        with pytest.raises(OSError, match="no space left"):
            interop.import_torch(path, str(run))
    assert not list(run.iterdir())
    assert interop.import_torch(path, str(run)).step == 0


def test_what_keras_computes_in_stays_as_it_was(tmp_path):
    path = str(tmp_path / "a.pth")
    torch.save(peer.official(peer.make_moco()), path)
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        interop.import_torch(path, str(tmp_path / "run"))
        assert keras.mixed_precision.dtype_policy().name == "mixed_bfloat16"
        encoder = encoders.load(path).encoder
        assert encoder.backbone.get_layer("conv1").compute_dtype == "float32"
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def test_detectors_get_their_names(tmp_path):
    model = peer.make_moco("50")
    state = naming_schemes.parse(peer_arrays(model))
    path = str(tmp_path / "a.pkl")
    interop.export_detectron2(state, path)
    content = (tmp_path / "a.pkl").read_bytes()
    assert b"numpy._core" not in content  # which NumPy 1 does not know
    unpickled = pickle.loads(content)
    assert (unpickled["__author__"], unpickled["matching_heuristics"]) == ("MOCO", True)
    query_weights = {k: v.numpy() for k, v in model.encoder_q.state_dict().items()}
    assert len(unpickled["model"]) == len(query_weights)
    for theirs, ours in {
        "stem.conv1.weight": "conv1.weight",
        "stem.conv1.norm.running_mean": "bn1.running_mean",
        "res2.0.shortcut.weight": "layer1.0.downsample.0.weight",
        "res2.0.shortcut.norm.bias": "layer1.0.downsample.1.bias",
        "res5.2.conv3.norm.num_batches_tracked": "layer4.2.bn3.num_batches_tracked",
        "stem.fc.2.weight": "fc.2.weight",
    }.items():
        np.testing.assert_array_equal(unpickled["model"][theirs], query_weights[ours])

    bare = {k: v for k, v in query_weights.items() if not k.startswith("fc")}
    for write, prefix, unpack in (
        (interop.export_torchvision, "", dict),
        (interop.export_torchvision_detection, "backbone.body.", dict),
        (interop.export_mmdetection, "backbone.", lambda saved: saved["state_dict"]),
    ):
        path = str(tmp_path / "a.pth")
        write(state, path)
        unpickled = unpack(torch.load(path, weights_only=True))
        assert list(unpickled) == [prefix + name for name in bare]
        for name, array in bare.items():
            np.testing.assert_array_equal(unpickled[prefix + name].numpy(), array)


def peer_arrays(model):
    return {k: v.numpy() for k, v in peer.official(model)["state_dict"].items()}
