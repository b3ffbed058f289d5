"""PyTorch checkpoints in and out, against MoCo in PyTorch."""

import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf import interop
from moco_tf.interop import training_state, weights

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
import torch_peer as peer  # noqa: E402


def config(**overrides):
    fields = {"model__stem": "imagenet", "model__dim": peer.DIM, "model__queue_size": peer.QUEUE}
    fields |= {"model__width": 8, "model__bn_group_size": None, "model__shuffle": False}
    fields |= {
        "model__momentum": 0.9,
        "model__temperature": 0.2,
        "batch_size": 8,
        "data__image_size_px": 40,
        "monitor__resize_px": None,
    }
    return tiny.config(**{**fields, **overrides})


@pytest.mark.parametrize(
    "name, version, width, sizes, zipped",
    [
        ("18", "v1", 16, ((97, 65),), False),  # the format before PyTorch 1.6
        ("50", "v2", 16, ((75, 121),), True),
        pytest.param("18", "v1", 64, ((224, 224), (97, 65)), True, marks=pytest.mark.slow),
        pytest.param("50", "v2", 64, ((224, 224), (75, 121)), True, marks=pytest.mark.slow),
        pytest.param("50x2", "v2", 64, ((224, 224), (61, 93)), True, marks=pytest.mark.slow),
        pytest.param("50", "v1", 8, ((33, 47),), False, marks=pytest.mark.slow),
    ],
)
def test_official_checkpoints_compute_the_same(name, version, width, sizes, zipped, tmp_path):
    model, path = peer.make_moco(name, version, width).eval(), str(tmp_path / "a.pth.tar")
    torch.save(peer.official(model), path, _use_new_zipfile_serialization=zipped)
    imported = interop.import_torch(path, str(tmp_path / "run"))
    assert (imported.scheme, imported.backbone) == ("the official MoCo", f"resnet{name}")
    ours = training_state.restored(str(tmp_path / "run"), imported.config)
    backbone = ours.encoder_q.backbone
    for height, width_ in sizes:
        x = peer.images(2, height, width_, 3)
        with torch.no_grad():
            want = (
                model.encoder_q.features(peer.torch_images(x)),
                model.encoder_q(peer.torch_images(x)),
            )
            key = torch.nn.functional.normalize(model.encoder_k(peer.torch_images(x)))
            q = torch.nn.functional.normalize(want[1])
            logits = torch.cat([(q * key).sum(1, keepdim=True), q @ model.queue], dim=1) / 0.2
        np.testing.assert_allclose(backbone(x), want[0], atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(ours.encoder_q(x), want[1], atol=1e-4, rtol=1e-4)
        k = tf.math.l2_normalize(ours.encoder_k(x), axis=1)
        np.testing.assert_allclose(k, key, atol=1e-4)
        got_q = tf.math.l2_normalize(ours.encoder_q(x), axis=1)
        l_pos = tf.reduce_sum(got_q * k, axis=1, keepdims=True)
        got = tf.concat([l_pos, tf.matmul(got_q, ours.queue, transpose_b=True)], axis=1) / 0.2
        np.testing.assert_allclose(got, logits, atol=1e-4)


def test_training_goes_on_as_it_would_have_in_torch(tmp_path):
    model = peer.make_moco()
    rate = {"learning_rate": 0.1, "reference_batch": 8, "schedule": "step"}
    rate = {f"optimizer__{name}": value for name, value in rate.items()}
    recipe = config(epochs=99, model__backbone="resnet:resnet18", **rate)
    settings = dict(lr=0.1, momentum=0.9, weight_decay=recipe.optimizer.weight_decay)
    optimizer = torch.optim.SGD(model.parameters(), **settings)
    batches = [
        (peer.images(8, 40, 40, 3, seed=i), peer.images(8, 40, 40, 3, seed=9 + i)) for i in range(5)
    ]
    peer.train(model, optimizer, batches[:3])
    path = str(tmp_path / "a.pth.tar")
    torch.save(peer.official(model, optimizer, epoch=1), path)
    imported = interop.import_torch(path, str(tmp_path / "run"), recipe)
    assert imported.step == 3
    ours = training_state.restored(str(tmp_path / "run"), imported.config)
    got = [float(ours.step(batch)["loss"]) for batch in batches[3:]]
    np.testing.assert_allclose(got, peer.train(model, optimizer, batches[3:]), rtol=1e-4)
    want = {k: v.numpy() for k, v in model.state_dict().items()}
    for letter, encoder in (("q", ours.encoder_q), ("k", ours.encoder_k)):
        for name, array in weights.arrays_of(encoder).items():
            np.testing.assert_allclose(array, want[f"encoder_{letter}.{name}"], atol=1e-4)
    np.testing.assert_allclose(ours.queue.numpy().T, want["queue"], atol=1e-4)
    assert int(ours.queue_ptr) == int(want["queue_ptr"][0])


@pytest.mark.parametrize("version", [pytest.param("v1", marks=pytest.mark.slow), "v2"])
def test_an_export_is_the_import_bit_for_bit(version, tmp_path):
    model, paths = (
        peer.make_moco(version=version),
        [str(tmp_path / n) for n in ("a.pth.tar", "b.pth.tar")],
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = [
        (peer.images(8, 40, 40, 3, seed=i), peer.images(8, 40, 40, 3, seed=9 + i)) for i in range(2)
    ]
    peer.train(model, optimizer, batches)
    saved = peer.official(model, optimizer, epoch=7)
    torch.save(saved, paths[0])
    imported = interop.import_torch(paths[0], str(tmp_path / "run"))
    state = training_state.read(str(tmp_path / "run"), imported.config)
    interop.export_official(state, paths[1], "resnet18", imported.config)
    again = torch.load(paths[1], weights_only=True)
    assert (again["epoch"], again["arch"]) == (7, "resnet18")
    assert list(again["state_dict"]) == list(saved["state_dict"])
    for name, tensor in saved["state_dict"].items():
        assert torch.equal(again["state_dict"][name], tensor), name
        assert again["state_dict"][name].dtype == tensor.dtype
    assert again["optimizer"]["state"].keys() == saved["optimizer"]["state"].keys()
    for number, moments in saved["optimizer"]["state"].items():
        got = again["optimizer"]["state"][number]["momentum_buffer"]
        assert torch.equal(got, moments["momentum_buffer"])

    other = torch.nn.Module()
    other.module = peer.make_moco(version=version, seed=1)
    other.load_state_dict(again["state_dict"], strict=True)
    torch.optim.SGD(other.parameters(), lr=0.1).load_state_dict(again["optimizer"])


def test_a_config_of_another_encoder_and_a_taken_folder_are_refused(tmp_path):
    path = str(tmp_path / "a.pth")
    torch.save(peer.official(peer.make_moco()), path)
    with pytest.raises(
        ValueError, match="have the encoder and queue of the file.*queue_size: 256 ->"
    ):
        interop.import_torch(path, str(tmp_path / "run"), config(model__queue_size=64))
    interop.import_torch(path, str(tmp_path / "run"))
    with pytest.raises(ValueError, match="must be a folder without a run"):
        interop.import_torch(path, str(tmp_path / "run"))
