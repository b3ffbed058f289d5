"""Set-up of strategies, and what a TPU forbids."""

import numpy as np
import pytest
import tensorflow as tf

from moco_tf import optim, strategies
from moco_tf.backbones import heads, resnet
from moco_tf.backbones.encoder import Encoder
from moco_tf.data.recipes import moco
from moco_tf.moco import MoCo


def test_a_wrong_name_says_which_are_right():
    with pytest.raises(ValueError, match="auto, none, mirrored, multiworker, tpu.*'gpu'"):
        strategies.make_strategy("gpu")


def test_multiworker_without_a_cluster_names_tf_config(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="TF_CONFIG"):
        strategies.make_strategy("multiworker")


def test_auto_is_one_device_here(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert strategies.make_strategy("auto").num_replicas_in_sync == 1


def test_mirrored_takes_all_logical_cpus_where_there_is_no_gpu():
    assert strategies.make_strategy("mirrored").num_replicas_in_sync == 4


VFIO = {"dev/vfio/0": ""}


def pci(vendor, device):
    """Files of a PCI device, as Linux shows them."""
    folder = "sys/bus/pci/devices/0000:00:05.0"
    return {f"{folder}/vendor": f"{vendor}\n", f"{folder}/device": f"{device}\n"}


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, False),
        ({"dev/accel0": ""}, True),
        (VFIO, False),  # a GPU that is passed through has it too
        (VFIO | pci("0x10de", "0x2330"), False),
        (VFIO | pci("0x1ae0", "0x0063"), True),  # v5e
        (pci("0x1ae0", "0x006f"), True),  # v6e
        (pci("0x1ae0", "0x0042"), False),  # Google's network card, on machines without a TPU
        (pci("0x1ae0", "0x001f"), False),  # and its disk
        (pci("", "0x0063"), False),
    ],
)
def test_a_tpu_is_detected_by_its_device(files, expected, tmp_path):
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    assert strategies.has_tpu(tmp_path) is expected


def test_auto_takes_an_attached_tpu(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(strategies, "has_tpu", lambda: True)
    monkeypatch.setattr(strategies, "_make_tpu_strategy", lambda tpu: f"TPU {tpu}")
    assert strategies.make_strategy("auto") == "TPU local"


@pytest.mark.parametrize(
    "tpu, name, connects", [(None, "local", False), ("my-pod", "my-pod", True)]
)
def test_tpu_set_up(tpu, name, connects, monkeypatch):
    """A double: no TPU here, but the calls and their order are those that a TPU needs."""
    calls = []
    note = lambda what: lambda *a, **k: calls.append((what, a, k)) or what  # noqa: E731
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", note("resolver"))
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", note("connect"))
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", note("initialize"))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", note("strategy"))
    assert strategies.make_strategy("tpu", tpu) == "strategy"
    assert calls[0] == ("resolver", (), {"tpu": name})
    wanted = ["resolver", *(["connect"] if connects else []), "initialize", "strategy"]
    assert [what for what, _, _ in calls] == wanted


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_whole_step_compiles_with_xla_and_has_static_shapes(compiled):
    """Device half of the augmentation, both encoders, queue and optimizer, as a TPU gets them."""
    backbone = resnet.ResNet("basic", (1, 1), width=4, stem="cifar", bn_group_size=2)
    model = MoCo(Encoder(backbone, heads.mlp(8)), queue_size=13)
    model.compile(optim.SGD(optim.Cosine(0.03, 10, 5)))
    model.optimizer.build(model.trainable_variables)
    n, size = 4, 8
    images = np.random.default_rng(0).integers(0, 256, (2, n, size, size, 3), np.uint8)
    draws = np.random.default_rng(1).random((2, n, moco.v2.num_draws), np.float32)

    def step(images_q, images_k, draws_q, draws_k, order):
        return model.step(
            {
                "x_q": moco.v2.photometric(images_q, draws_q),
                "x_k": moco.v2.photometric(images_k, draws_k),
                "order": order,
            }
        )

    args = [tf.constant(x) for x in (*images, *draws, np.array([2, 0, 3, 1], np.int32))]
    plain = tf.function(step, autograph=False)
    graph = plain.get_concrete_function(*args).graph
    every = [op for g in _graphs(graph) for op in g.get_operations()]
    assert not {op.type for op in every for t in op.outputs if t.dtype == tf.string}
    assert not {op.type for op in every} & {"PyFunc", "EagerPyFunc", "Where", "Unique"}

    if not compiled:
        return
    weights = [v.numpy() for v in model.variables]
    want = plain(*args)
    for variable, value in zip(model.variables, weights):
        variable.assign(value)
    model.optimizer.iterations.assign(0)
    got = tf.function(step, autograph=False, jit_compile=True)(*args)
    np.testing.assert_allclose(got["loss"], want["loss"], rtol=1e-4)


def test_the_program_is_small_and_copies_no_queue():
    """No constants of megabytes, and the only tensor of the queue's size is the queue, read."""
    size, dim = 65536, 8
    backbone = resnet.ResNet("basic", (1, 1), width=4, stem="cifar")
    model = MoCo(Encoder(backbone, heads.mlp(dim)), queue_size=size)
    model.compile(optim.SGD(0.03))
    views = tf.TensorSpec([4, 8, 8, 3])
    step = tf.function(model.step, autograph=False)
    graph = step.get_concrete_function((views, views)).graph
    every = [op for g in _graphs(graph) for op in g.get_operations()]
    constants = [op.outputs[0] for op in every if op.type == "Const"]
    assert max(t.shape.num_elements() * t.dtype.size for t in constants) < 10_000
    of_queue = {op.type for op in every for t in op.outputs if t.shape == [size, dim]}
    assert of_queue == {"ReadVariableOp"}


def _graphs(graph):
    """A function's graph and those of the functions it calls."""
    yield graph
    for function in graph._functions.values():
        yield from _graphs(function.graph) if hasattr(function, "graph") else ()
