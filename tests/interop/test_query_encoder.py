"""Whatever leaves a run is its query encoder, f_q, never the key encoder."""

import pathlib
import pickle

import numpy as np
import pytest
import tiny

from moco_tf import encoders
from moco_tf.commands import export
from moco_tf.interop import torch_file

FILES = {
    "keras": "x.keras",
    "torch": "x.pth.tar",
    "torchvision": "x.pth",
    "torchvision_detection": "x.pth",
    "mmdetection": "x.pth",
    "detectron2": "x.pkl",
}
SHAPE = (3, 3, 3, 4)  # of the first convolution, HWIO


@pytest.fixture(scope="module")
def kernels(pretrained):
    """The first convolution's kernel in the run's two encoders, by the checkpoint."""
    saved = tiny.saved(pretrained)
    in_key_encoder = [n for n in saved if n.startswith("model/encoder_k/")]
    (key,) = (saved[name] for name in in_key_encoder if saved[name].shape == SHAPE)
    query = [v for v in saved.values() if v.shape == SHAPE and not np.array_equal(v, key)]
    return key, query  # the query's velocity has this shape, too


def arrays_in(value):
    """All arrays in nested dicts, by the names on the way to them."""
    if isinstance(value, np.ndarray):
        yield "", value
    if isinstance(value, dict):
        for name, part in value.items():
            for path, array in arrays_in(part):
                yield f"{name}/{path}", array


@pytest.mark.parametrize("export_format", FILES)
def test_an_export_is_the_query_encoder(export_format, pretrained, kernels, tmp_path):
    path = str(tmp_path / FILES[export_format])
    export.export(str(pretrained), export_format, path)
    if export_format == "keras":
        exported = [encoders.load(path).encoder.backbone.get_layer("conv1").kernel.numpy()]
    else:
        is_pickle = path.endswith(".pkl")
        content = pickle.loads(pathlib.Path(path).read_bytes()) if is_pickle else None
        content = content or torch_file.read(path)
        exported = [
            array.transpose(2, 3, 1, 0)
            for name, array in arrays_in(content)
            if array.shape == (4, 3, 3, 3) and "encoder_k" not in name and "buffer" not in name
        ]
    key, query = kernels
    assert exported
    for array in exported:
        assert any(np.array_equal(array, q) for q in query)
        assert not np.array_equal(array, key)


def test_evaluations_load_the_query_encoder(pretrained, kernels):
    kernel = encoders.load(str(pretrained)).encoder.backbone.get_layer("conv1").kernel.numpy()
    key, query = kernels
    assert any(np.array_equal(kernel, q) for q in query) and not np.array_equal(kernel, key)
