"""PyTorch's files read and written without PyTorch, against PyTorch."""

import collections
import contextlib
import io
import os
import pickle
import resource
import zipfile

import numpy as np
import pytest

from moco_tf.interop import torch_file

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")


def content():
    shared = torch.randn(4, 6)
    return {
        "epoch": 3,
        "arch": "resnet50",
        "others": [1, -5, 2**40, 2.5, None, True, (1, "ä"), torch.Size([2, 3])],
        "state_dict": collections.OrderedDict(
            matrix=torch.randn(3, 4),
            transposed=torch.randn(4, 3).t(),
            part=shared[1:3, ::2],
            whole=shared,
            scalar=torch.tensor(7),
            empty=torch.zeros(0, 3),
            parameter=torch.nn.Parameter(torch.randn(2, 2)),
            half=torch.randn(5).half(),
            bfloat16=torch.randn(5).bfloat16(),
            double=torch.randn(5).double(),
            int=torch.arange(5, dtype=torch.int32),
            short=torch.arange(5, dtype=torch.int16),
            byte=torch.arange(5, dtype=torch.uint8),
            char=torch.arange(5, dtype=torch.int8),
            bool=torch.tensor([True, False]),
        ),
    }


def as_numpy(tensor):
    tensor = tensor.detach()
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def assert_equal(arrays, tensors):
    assert list(arrays) == list(tensors)
    for name, tensor in tensors.items():
        want = as_numpy(tensor)
        got = arrays[name].astype(np.float32) if name == "bfloat16" else arrays[name]
        assert got.dtype == want.dtype and got.shape == want.shape, name
        np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_reads_what_torch_saves(zipped, tmp_path):
    saved, path = content(), str(tmp_path / "a.pth")
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    read = torch_file.read(path)
    assert_equal(read["state_dict"], saved["state_dict"])
    assert {k: read[k] for k in ("epoch", "arch", "others")} == {
        **{k: saved[k] for k in ("epoch", "arch")},
        "others": [*saved["others"][:-1], (2, 3)],
    }


@pytest.mark.parametrize("weights_only", [True, False])
def test_torch_loads_what_is_written(weights_only, tmp_path):
    saved, paths = content(), [str(tmp_path / name) for name in ("a.pth", "b.pth")]
    torch.save(saved, paths[0])
    torch_file.write(paths[1], torch_file.read(paths[0]))
    loaded = torch.load(paths[1], weights_only=weights_only)
    assert loaded["others"] == [*saved["others"][:-1], (2, 3)] and loaded["epoch"] == 3
    for name, tensor in saved["state_dict"].items():
        assert torch.equal(loaded["state_dict"][name], tensor)
        assert loaded["state_dict"][name].dtype == tensor.dtype
    with pytest.raises(TypeError, match="cannot hold a set"):
        torch_file.write(paths[1], {"a": {1, 2}})


class Harmful:
    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(zipped, tmp_path):
    harmful, path = Harmful(), str(tmp_path / "a.pth")
    harmful.path = str(tmp_path / "made")
    torch.save({"state_dict": {}, "more": harmful}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"only tensors.*asks for posix\.mkdir.*save its"):
        torch_file.read(path)
    assert not (tmp_path / "made").exists()


def forged(size, strides, offset=0, stored=6):
    """A zip file with a tensor of six numbers that claims to be another."""
    array, arrays = np.arange(6, dtype=np.float32), []
    honest = pickle.PROTO + b"\x02" + torch_file._pickle({"a": array}, arrays) + pickle.STOP

    def part(value):
        return pickle.dumps(value, protocol=2)[2:-1]

    lie = part(offset) + torch_file._pickle((tuple(size), tuple(strides), False), arrays)[1:-1]
    truth = part(0) + torch_file._pickle(((6,), (1,), False), arrays)[1:-1]
    assert honest.count(truth) == 1
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", honest.replace(truth, lie))
        archive.writestr("a/data/0", array[:stored].tobytes())
    return file.getvalue()


@pytest.mark.parametrize(
    "forgery, message",
    [
        (dict(size=[7], strides=[1]), "larger than its storage"),
        (dict(size=[2, 3], strides=[4, 1]), "larger than its storage"),
        (dict(size=[6], strides=[1], offset=1), "larger than its storage"),
        (dict(size=[2], strides=[-1], offset=3), "negative"),
        (dict(size=[2, 2], strides=[1]), "missing"),
        (dict(size=[6], strides=[1], stored=5), "too short"),
        (dict(size=[2, 6], strides=[0, 1]), "larger than its storage"),
    ],
)
def test_a_tensor_cannot_leave_its_storage(forgery, message, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(forged([6], [1]))
    np.testing.assert_array_equal(torch_file.read(str(path))["a"], np.arange(6))
    path.write_bytes(forged(**forgery))
    with pytest.raises(ValueError, match=f"whole file of torch.save.*{message}"):
        torch_file.read(str(path))


class View:
    """A tensor of another tensor: the inner one claims a length that the outer one reads."""

    def __init__(self, inner, shape, stride):
        self.arguments = inner, 0, (shape,), (stride,), False, {}

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


def test_a_tensor_is_of_a_storage_not_of_a_tensor(tmp_path):
    path = str(tmp_path / "a.pth")
    torch.save({"a": View(torch.zeros(1), 1000, 1)}, path)
    with pytest.raises(ValueError, match="a tensor that is not of a storage"):
        torch_file.read(path)


def test_what_a_file_announces_is_not_allocated(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02}r" + (2**32 - 1).to_bytes(4, "little") + b".")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="whole file of torch.save"):
        torch_file.read(str(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # KiB


def test_numbers_that_are_missing_are_not_made_up(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"a": torch.ones(5)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    start = content.rindex(b"\x80\x02]q")  # the list of keys
    path.write_bytes(content[:start] + pickle.dumps([], protocol=2))
    with pytest.raises(ValueError, match="numbers of some storages are missing"):
        torch_file.read(str(path))


@pytest.mark.parametrize("missing", range(1, 8))
def test_a_file_cut_within_its_last_numbers_is_refused(missing, tmp_path):
    """Also where a single number is left of them, which could stand for all."""
    path = tmp_path / "a.pth"
    torch.save(torch.arange(2), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ValueError, match="whole file of torch.save"):
        torch_file.read(str(path))
    torch.save(torch.tensor([True] * 8), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ValueError, match="whole file of torch.save"):
        torch_file.read(str(path))


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused(zipped, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(content(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for size in (0, 1, 10, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="whole file of torch.save"):
            torch_file.read(str(path))
    for _ in range(200):  # a flipped byte is found, or changes a value, but never more
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            torch_file.read(str(path))
    for other in (b"GIF89a", pickle.dumps({"a": 1}), b"\x80\x02}q\x00."):
        path.write_bytes(other)
        with pytest.raises(ValueError, match="whole file of torch.save"):
            torch_file.read(str(path))
