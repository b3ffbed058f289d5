"""Vision transformers in PyTorch files: MoCo v3's, timm's, and others that look like them."""

import dataclasses

import numpy as np
import pytest
import tiny

from moco_tf import Encoder, encoders, heads, interop, vit
from moco_tf.commands import export
from moco_tf.pretraining import build
from moco_tf.pretraining.config import Model

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
import torch_peer  # noqa: E402
import vit_peer  # noqa: E402

X = torch_peer.images(2, 32, 32, 3)


def peer(head=None, width=384, seed=0, **options):
    """A ViT-S of one block for images of 2 x 2 patches."""
    settings = {"depth": 1, "num_heads": 12, "grid": (2, 2)} | options
    return vit_peer.randomized(vit_peer.ViT(width, **settings, head=head), seed)


def features(model):
    with torch.no_grad():
        return model.features(torch_peer.torch_images(X)).numpy()


def saved(tmp_path, content, name="vit-s.pth.tar"):
    torch.save(content, tmp_path / name)
    return str(tmp_path / name)


def projector():
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(384, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 4, bias=False),
        nn.BatchNorm1d(4, affine=False),
    )


def moco_v3(tmp_path):
    """A file as main_moco.py of MoCo v3 saves it, and its base encoder."""
    base, momentum = (peer(projector(), seed=seed).eval() for seed in (0, 1))
    state = {"module.predictor.0.weight": torch.ones(8, 8)}
    for part, network in (("base", base), ("momentum", momentum)):
        state |= {f"module.{part}_encoder.{n}": v for n, v in network.state_dict().items()}
    content = {"epoch": 300, "arch": "vit_small", "state_dict": state, "scaler": {}}
    return saved(tmp_path, content), base


def test_a_file_of_moco_v3_becomes_an_encoder_and_goes_back_bit_for_bit(tmp_path):
    path, base = moco_v3(tmp_path)
    workdir = str(tmp_path / "run")
    imported = interop.import_torch(path, workdir)
    assert (imported.scheme, imported.backbone, imported.epoch) == ("MoCo v3", "vit_small", 300)
    encoder = encoders.load(workdir).encoder
    assert (encoder.backbone.depth, encoder.backbone.num_heads) == (1, 12)
    np.testing.assert_allclose(encoder.backbone(X), features(base), rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        want = base(torch_peer.torch_images(X))
    np.testing.assert_allclose(encoder(X), want, rtol=1e-3, atol=1e-3)

    # The file has positions for 2 x 2 patches, an encoder alone gets those of 224 px.
    wanted = {n: v.numpy() for n, v in base.state_dict().items()}
    wanted["pos_embed"] = vit_peer.sine_cosine(14, 14, 384).numpy()
    output = str(tmp_path / "back.pth.tar")
    for name, prefix in (("torch", "module.base_encoder."), ("timm", "")):
        export.export(workdir, name, output)
        arrays = torch.load(output, weights_only=True)
        arrays = arrays["state_dict"] if name == "torch" else arrays
        names = [n for n in wanted if name == "torch" or not n.startswith("head.")]
        assert list(arrays) == [prefix + n for n in names]
        for key in names:
            atol = 1e-5 if key == "pos_embed" else 0
            np.testing.assert_allclose(arrays[prefix + key], wanted[key], rtol=0, atol=atol)
    assert encoders.load(output).encoder.backbone.name == "vit_small"


def test_a_linear_classifier_of_main_lincls_gives_class_scores(tmp_path):
    classifier = peer(head=torch.nn.Linear(384, 10))
    state = {f"module.{n}": v for n, v in classifier.state_dict().items()}
    loaded = encoders.load(saved(tmp_path, {"state_dict": state}))
    with torch.no_grad():
        want = classifier(torch_peer.torch_images(X))
    np.testing.assert_allclose(loaded.encoder(X), want, rtol=1e-3, atol=1e-3)
    # As convert_to_deit.py writes it: the backbone alone.
    state = {n: v for n, v in classifier.state_dict().items() if not n.startswith("head.")}
    loaded = encoders.load(saved(tmp_path, {"model": state}))
    np.testing.assert_allclose(loaded.encoder(X), features(classifier), rtol=1e-3, atol=1e-4)


def changed(**arrays):
    state = peer().state_dict()
    return {n: v for n, v in (state | arrays).items() if v is not None}


@pytest.mark.parametrize(
    "state, message",
    [
        (lambda: changed(pos_embed=torch.randn(1, 5, 384)), "fixed sine-cosine.*learned"),
        (lambda: changed(pos_embed=torch.zeros(5)), "fixed sine-cosine"),
        (lambda: peer(width=192).state_dict(), "does not say how many heads.*192 channels"),
        (lambda: changed(**{"norm.bias": None}), "1 missing, such as norm.bias"),
        (lambda: changed(**{"fc_norm.bias": torch.ones(3)}), "1 unexpected, such as fc_norm.bias"),
        (lambda: changed(**{"patch_embed.proj.weight": None}), "must be of a ViT of MoCo v3"),
    ],
)
def test_other_vision_transformers_are_refused(state, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        encoders.load(saved(tmp_path, state()))


def test_a_run_s_positions_are_those_of_its_images(tmp_path, monkeypatch):
    encoder = Encoder(vit.VisionTransformer(16, 1, 4, patch_px=4), heads.mlp(8))
    encoder.save(tmp_path / "encoder.keras")
    loaded = encoders.load(str(tmp_path / "encoder.keras"))
    loaded = dataclasses.replace(loaded, run=tiny.config(data__image_size_px=12))
    monkeypatch.setattr(encoders, "load", lambda path: loaded)
    path = str(tmp_path / "x.pth")
    export.export(str(tmp_path / "encoder.keras"), "timm", path)
    np.testing.assert_allclose(
        torch.load(path, weights_only=True)["pos_embed"], vit_peer.sine_cosine(3, 3, 16), atol=1e-6
    )
    with pytest.raises(ValueError, match="A ResNet is needed, received vit"):
        export.export(str(tmp_path / "encoder.keras"), "torchvision", path)


def test_a_backbone_is_built_with_options():
    options = ("depth=2", "num_heads=4", "patch_px=4", "frozen_patches=false")
    model = Model(backbone="vit:vit_small", width=32, backbone_options=options)
    backbone = build.make_backbone(model)
    config = backbone.get_config()
    assert [config[n] for n in ("width", "depth", "patch_px", "frozen_patches")] == [
        32,
        2,
        4,
        False,
    ]
    for wrong in ("heads=4", "depth"):
        model.backbone_options = (wrong,)
        with pytest.raises(ValueError, match=rf"NAME=VALUE.*takes.*num_heads.*Received: '{wrong}'"):
            build.make_backbone(model)
    model.backbone_options, model.bn_group_size = (), 4
    with pytest.raises(ValueError, match="model.bn_group_size` must be None.*takes no bn_group"):
        build.make_backbone(model)
