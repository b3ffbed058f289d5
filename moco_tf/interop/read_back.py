"""Exported files are read back and run once before they get their names."""

import pickle
import re
from collections.abc import Callable

import keras
import numpy as np

from moco_tf import storage
from moco_tf.backbones.encoder import Encoder
from moco_tf.interop import torch_file, weights

PREFIXES = {  # patterns before the query encoder's arrays in the formats of PyTorch
    "torch": r"module\.(encoder_q|base_encoder)\.",
    "torchvision": "",
    "timm": "",
    "torchvision_detection": r"backbone\.body\.",
    "mmdetection": r"backbone\.",
}


def write_checked(
    path: str,
    write: Callable[[str], None],
    read: Callable[[str], keras.Model],
    network: keras.Model,
):
    """Writes a file, which gets its name only if it computes what a network computes.

    Args:
        path: local or gs:// file.
        write: function that writes the file to a path of the same extension.
        read: function from a path to the model in the file.
        network: model from normalized images to one output.

    Raises:
        ValueError: if the file computes something else; then there is none.
    """

    def write_and_run(temporary):
        write(temporary)
        difference = relative_difference(read(temporary), network)
        if not difference <= 1e-4:
            raise ValueError(
                f"The file must compute what {network.name} computes. Received: {path!r}, which "
                f"differs by {difference:g} of the largest output on random images. Nothing was "
                "written."
            )

    storage.replace(path, write_and_run)


def read_torch(path: str, export_format: str, network: keras.Model) -> keras.Model:
    """A copy of a network with the weights in a file of a PyTorch format.

    Args:
        path: local or gs:// file, as `export` writes it.
        export_format: "detectron2" or a key of `PREFIXES`.
        network: `Encoder` with a ResNet or a ViT, or such a backbone alone.

    Raises:
        ValueError: if an array of the network is missing, or has another shape.
    """
    if export_format == "detectron2":
        content = storage.read_bytes(path)
        arrays = {_torchvision_name(n): x for n, x in pickle.loads(content)["model"].items()}
    else:
        saved, prefix = torch_file.read(path), PREFIXES[export_format]
        arrays = saved.get("state_dict", saved)
        arrays = {re.sub(f"^{prefix}", "", n): x for n, x in arrays.items() if re.match(prefix, n)}
        arrays = {re.sub(r"^head\.", "fc.", n): x for n, x in arrays.items()}
    arrays = {n: x for n, x in arrays.items() if not n.endswith("num_batches_tracked")}
    copy = (network if isinstance(network, Encoder) else Encoder(network)).clone()
    weights.set_arrays(copy, arrays, repr(path))
    return copy


def _torchvision_name(name):
    """torchvision's name of one of detectron2's."""
    name = re.sub(r"^stem\.", "", name)
    name = re.sub(r"^res(\d)", lambda m: f"layer{int(m[1]) - 1}", name)
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    return re.sub(r"conv(\d)\.norm", r"bn\1", name)


def relative_difference(model: keras.Model, other: keras.Model) -> float:
    """Largest difference of two models on random images, as a share of the largest output.

    Args:
        model: model from normalized images, NxHxWxc, to one output.
        other: model with the same input.
    """
    shape = other.input_shape
    height, width = (size or 64 for size in shape[1:3])
    images = np.random.default_rng(0).normal(size=(2, height, width, shape[-1]))
    images = images.astype(np.float32)
    got, want = (np.asarray(net(images, training=False), np.float32) for net in (model, other))
    return float(np.abs(got - want).max() / max(np.abs(want).max(), 1e-2))
