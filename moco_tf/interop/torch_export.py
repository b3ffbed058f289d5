"""Encoders and runs to the files of PyTorch and of the detectors built on it."""

import pickle
import re

import numpy as np

from moco_tf import storage
from moco_tf.interop import naming_schemes, torch_file


def export_official(state, output, arch, config=None):
    """What main_moco.py saves and main_lincls.py reads: `module.encoder_q.`... and all else.

    Args:
        state: `naming_schemes.State`; without key encoder and queue the file has none.
        output: path of the file, local or gs://.
        arch: name of the backbone, such as "resnet50".
        config: `Config` of the run, for the optimizer's settings; None for those in the state.
    """
    group = state.group or {}
    if config:
        o = config.optimizer
        rate = o.learning_rate * config.batch_size / o.reference_batch
        group = {"lr": rate, "momentum": o.momentum, "weight_decay": o.weight_decay}
    torch_file.write(output, _official(state, arch, group))


def export_torchvision(state, output):
    """A plain state dict of the backbone, for `resnet50().load_state_dict(..., strict=False)`."""
    torch_file.write(output, _backbone(state))


def export_torchvision_detection(state, output):
    """The backbone in torchvision's Faster, Mask and Keypoint R-CNN with an FPN."""
    torch_file.write(output, _backbone(state, "backbone.body."))


def export_mmdetection(state, output):
    """For `init_cfg=dict(type="Pretrained", checkpoint=..., prefix="backbone.")` of mmdetection."""
    torch_file.write(output, {"state_dict": _backbone(state, "backbone."), "meta": {}})


def export_detectron2(state, output):
    """The pickle of NumPy arrays that the reference's converter makes for detectron2."""
    pickled = pickle.dumps(_detectron2(state), protocol=3)
    # NumPy 2's name of the module, which occurs once, is not known to the NumPy 1 that detectron2
    # is often installed with; NumPy 2 knows both.
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    storage.write_bytes(output, pickled.replace(new, old, 1))


def _official(state, arch, group):
    """What main_moco.py saves, for `torch_file.write`.

    Args:
        state: `State`; without key encoder and queue, the file has none.
        arch: name of the backbone, such as "resnet50".
        group: dict of lr, momentum and weight_decay of the optimizer, if there is a velocity.
    """
    saved = {}
    if state.queue is not None:
        saved["module.queue"] = np.ascontiguousarray(state.queue.T)
        saved["module.queue_ptr"] = np.array([state.queue_ptr], np.int64)
    for letter, part in (("q", state.query), ("k", state.key or {})):
        for name, array in _with_counts(part, state.forwards).items():
            saved[f"module.encoder_{letter}.{name}"] = array
    result = {"epoch": state.epoch, "arch": arch, "state_dict": saved}
    if state.velocity is not None:
        count = sum(
            naming_schemes.is_parameter(name) for part in (state.query, state.key) for name in part
        )
        group = {**group, "dampening": 0, "nesterov": False, "params": list(range(count))}
        buffers = enumerate(
            state.velocity[name] for name in filter(naming_schemes.is_parameter, state.query)
        )
        moments = {number: {"momentum_buffer": buffer} for number, buffer in buffers}
        result["optimizer"] = {"state": moments, "param_groups": [group]}
    return result


def _with_counts(arrays, forwards):
    """Arrays with the `num_batches_tracked` that torch's BN also saves."""
    result = {}
    for name, array in arrays.items():
        result[name] = array
        if name.endswith("running_var"):
            layer = name.removesuffix("running_var")
            result[f"{layer}num_batches_tracked"] = np.array(forwards, np.int64)
    return result


def _detectron2(state):
    """What the reference's converter pickles for detectron2: dict of NumPy arrays and notes."""

    def rename(name):
        name = name if name.startswith("layer") else f"stem.{name}"
        name = re.sub(r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
        name = re.sub(r"bn([1-3])", r"conv\1.norm", name)
        return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")

    arrays = {rename(n): v for n, v in _with_counts(state.query, state.forwards).items()}
    return {"model": arrays, "__author__": "MOCO", "matching_heuristics": True}


def _backbone(state, prefix=""):
    """The query encoder's backbone under torchvision's names with a prefix, without the head."""
    arrays = {n: v for n, v in state.query.items() if not n.startswith("fc.")}
    return {f"{prefix}{n}": v for n, v in _with_counts(arrays, state.forwards).items()}
