"""Files of other projects: read whole and right, or refused with the way out."""

import collections

import numpy as np
import pytest

from moco_tf import encoders
from moco_tf.commands import export
from moco_tf.interop import naming_schemes, torch_file

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
import torch_peer as peer  # noqa: E402

LAYERS = {"conv1": 0, "bn1": 1, **{f"layer{i}": i + 3 for i in range(1, 5)}}


def saved(tmp_path, content, name="a.ckpt"):
    path = str(tmp_path / name)
    torch.save(content, path)
    return path


def assert_same(arrays, tensors):
    """Arrays are the tensors of a state dict, but for its counters."""
    tensors = {n: v for n, v in tensors.items() if not n.endswith("num_batches_tracked")}
    assert arrays.keys() == tensors.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, tensors[name].numpy(), err_msg=name)


def test_the_query_encoder_of_lightlys_benchmarks_is_query_backbone(tmp_path):
    model = peer.make_moco()
    state = {"online_classifier.linear.weight": torch.ones(10, 64)}
    state["criterion.memory_bank.bank"] = torch.ones(16, 8)
    for encoder, prefix in ((model.encoder_q, "query_"), (model.encoder_k, "")):
        for name, value in encoder.state_dict().items():
            is_head = name.startswith("fc.")
            new = f"projection_head.layers.{name[3:]}" if is_head else f"backbone.{name}"
            state[prefix + new] = value
    content = {"epoch": 3, "pytorch-lightning_version": "2.0", "state_dict": state}
    path = saved(tmp_path, content | {"callbacks": {}, "lr_schedulers": [{"last_epoch": 3}]})
    parsed = naming_schemes.parse(torch_file.read(path))
    assert parsed.scheme == "lightly's benchmarks"
    assert_same(parsed.query, model.encoder_q.state_dict())
    assert_same(parsed.key, model.encoder_k.state_dict())


def test_a_sequence_of_torchvisions_layers_is_a_backbone(tmp_path):
    network = peer.randomized(peer.resnet("18", width=8)).eval()
    children = list(network.named_children())
    sequence = torch.nn.Sequential(*(child for _, child in children))  # all: it has no fc
    path = saved(tmp_path, sequence.state_dict(), "a.pth")
    assert "4.0.conv1.weight" in sequence.state_dict()
    x = peer.images(2, 40, 40, 3)
    with torch.no_grad():
        want = network.features(peer.torch_images(x))
    np.testing.assert_allclose(encoders.load(path).encoder(x), want, atol=1e-4, rtol=1e-4)


def v3_head(c):
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(c, 32, bias=False),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 16, bias=False),
        nn.BatchNorm1d(16, affine=False),
    )


def test_of_moco_v3_the_base_encoder_is_read_and_the_rest_named(tmp_path, caplog):
    base, momentum = (peer.randomized(peer.resnet("50", v3_head, 8), s).eval() for s in (0, 1))
    state = {"module.predictor.0.weight": torch.ones(32, 16)}
    for part, network in (("base", base), ("momentum", momentum)):
        state |= {f"module.{part}_encoder.{n}": v for n, v in network.state_dict().items()}
    path = saved(tmp_path, {"arch": "resnet50", "state_dict": state}, "r-50.pth.tar")
    parsed = naming_schemes.parse(torch_file.read(path))
    assert_same(parsed.query, base.state_dict())
    assert parsed.key is None and parsed.queue is None  # no run goes on from it
    assert "base encoder is read, without the predictor and the momentum encoder" in caplog.text
    loaded = encoders.load(path)
    x = peer.images(2, 40, 40, 3)
    with torch.no_grad():
        want = base(peer.torch_images(x))
    np.testing.assert_allclose(loaded.encoder(x), want, atol=1e-4, rtol=1e-3)

    output = str(tmp_path / "back.pth.tar")
    loaded.encoder.save(tmp_path / "encoder.keras")
    export.export(str(tmp_path / "encoder.keras"), "torch", output)
    back = torch.load(output, weights_only=True)["state_dict"]
    assert list(back) == [f"module.base_encoder.{n}" for n in base.state_dict()]
    for name, value in base.state_dict().items():
        np.testing.assert_array_equal(back[f"module.base_encoder.{name}"], value)

    del state["module.base_encoder.layer1.0.conv1.weight"]
    with pytest.raises(ValueError, match="1 missing, such as layer1.0.conv1.weight"):
        encoders.load(saved(tmp_path, {"state_dict": state}, "less.pth.tar"))


class Settings(collections.UserDict):
    """A class of a user's project, as Lightning pickles it with the hyper-parameters."""


@pytest.mark.parametrize(
    "content, way_out",
    [
        (
            lambda: {"state_dict": {}, "hyper_parameters": Settings(lr=1)},
            r"asks for test_foreign_files.Settings.*Lightning's: torch.save\(x\['state_dict'\]",
        ),
        (
            lambda: torch.nn.Sequential(torch.nn.Linear(2, 2)),
            r"asks for torch.nn.modules.*whole model.*torch.save\(x.state_dict\(\), NEW",
        ),
    ],
)
def test_files_that_run_code_are_refused_with_the_way_out(content, way_out, tmp_path):
    with pytest.raises(ValueError, match=way_out):
        encoders.load(saved(tmp_path, content()))
