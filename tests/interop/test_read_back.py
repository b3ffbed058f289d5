"""Exported files are run before they get their names: one that computes something else is none."""

import pickle

import keras
import numpy as np
import pytest

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


def scaled(value):
    """A nested value whose arrays are not as they should be."""
    if isinstance(value, dict):
        return {name: scaled(part) for name, part in value.items()}
    return value * 1.01 if isinstance(value, np.ndarray) and value.ndim else value


@pytest.mark.parametrize("export_format", FILES)
def test_a_file_with_other_weights_is_not_written(export_format, pretrained, tmp_path, monkeypatch):
    write, save = torch_file.write, keras.Model.save
    monkeypatch.setattr(torch_file, "write", lambda path, value: write(path, scaled(value)))
    dumps = pickle.dumps
    monkeypatch.setattr(pickle, "dumps", lambda value, protocol: dumps(scaled(value), protocol))

    def save_another(model, path):
        save(model.clone(), path)  # with new weights

    monkeypatch.setattr(keras.Model, "save", save_another)
    output = tmp_path / FILES[export_format]
    with pytest.raises(ValueError, match=r"must compute what .* computes.*Nothing was written"):
        export.export(str(pretrained), export_format, str(output))
    assert not list(tmp_path.iterdir())


def test_a_file_that_lacks_an_array_is_not_written(pretrained, tmp_path, monkeypatch):
    write = torch_file.write

    def write_less(path, value):
        write(path, {n: x for n, x in value.items() if n != "layer1.0.conv1.weight"})

    monkeypatch.setattr(torch_file, "write", write_less)
    with pytest.raises(ValueError, match=r"1 missing, such as layer1\.0\.conv1\.weight"):
        export.export(str(pretrained), "torchvision", str(tmp_path / "x.pth"))
    assert not list(tmp_path.iterdir())
