"""Export to PyTorch formats: official MoCo, torchvision, timm, mmdetection, detectron2."""

import pickle
import re

import numpy as np

from moco_tf import storage
from moco_tf.interop import naming_schemes, torch_file, vit_names, weights
from moco_tf.interop.naming_schemes import State
from moco_tf.pretraining.config import Config


def export_official(state: State, output: str, arch: str, config: Config | None = None):
    """Writes a checkpoint as main_moco.py saves and main_lincls.py reads it.

    A ViT and an encoder with MoCo v3's projector are written as by MoCo v3's main_moco.py.

    Args:
        state: training state; without key encoder and queue the file has none. As MoCo v3 the file
            has the encoders, but no predictor, queue or optimizer.
        output: path of the file, local or gs://.
        arch: name of the backbone, such as "resnet50".
        config: `Config` of the run, for the optimizer's settings; None: those in the state.
    """
    if vit_names.is_vit(state.query) or weights.has_projector(state.query):
        torch_file.write(output, _official_v3(state, arch))
        return
    group = state.group or {}
    if config:
        o = config.optimizer
        rate = o.learning_rate * config.batch_size / o.reference_batch
        group = {"lr": rate, "momentum": o.momentum, "weight_decay": o.weight_decay}
    torch_file.write(output, _official(state, arch, group))


def export_torchvision(state: State, output: str):
    """Writes the backbone for torchvision's `resnet50().load_state_dict(..., strict=False)`."""
    torch_file.write(output, _backbone(state))


def export_timm(state: State, output: str):
    """Writes the backbone for timm's `create_model("vit_base_patch16_224", num_classes=0)`.

    timm's ViT-S has 6 heads, MoCo v3's 12: there, add `num_heads=12`.
    """
    torch_file.write(output, vit_names.with_positions(_backbone(state), state.image_size_px))


def export_torchvision_detection(state: State, output: str):
    """Writes the backbone for torchvision's Faster, Mask and Keypoint R-CNN with an FPN."""
    torch_file.write(output, _backbone(state, "backbone.body."))


def export_mmdetection(state: State, output: str):
    """Writes the backbone for mmdetection.

    Its config then says `init_cfg=dict(type="Pretrained", checkpoint=..., prefix="backbone.")`.
    """
    torch_file.write(output, {"state_dict": _backbone(state, "backbone."), "meta": {}})


def export_detectron2(state: State, output: str):
    """Writes the backbone for detectron2, as the reference's converter does.

    Source: detection/convert-pretrain-to-detectron2.py of the official code.
    """
    pickled = pickle.dumps(_detectron2(state), protocol=3)
    # detectron2 is often installed with NumPy 1, which does not know NumPy 2's name of the module.
    # NumPy 2 knows both names. The name occurs once in the pickle.
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    storage.write_bytes(output, pickled.replace(new, old, 1))


def _official(state, arch, group):
    """The checkpoint of main_moco.py as a dict, for `torch_file.write`.

    Args:
        state: `State`; without key encoder and queue the dict has none.
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


def _official_v3(state, arch):
    """The checkpoint of MoCo v3's main_moco.py as a dict; arguments as in `_official`."""
    saved = {}
    for part, arrays in (("base", state.query), ("momentum", state.key)):
        if arrays:
            if vit_names.is_vit(arrays):
                arrays = vit_names.with_positions(arrays, state.image_size_px)
                arrays = {re.sub(r"^fc\.", "head.", n): array for n, array in arrays.items()}
            for name, array in _with_counts(arrays, state.forwards).items():
                saved[f"module.{part}_encoder.{name}"] = array
    return {"epoch": state.epoch, "arch": arch, "state_dict": saved}


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
    """The dict that the reference's converter pickles for detectron2."""

    def rename(name):
        name = name if name.startswith("layer") else f"stem.{name}"
        name = re.sub(r"layer(\d)", lambda m: f"res{int(m[1]) + 1}", name)
        name = re.sub(r"bn([1-3])", r"conv\1.norm", name)
        return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")

    arrays = {rename(n): v for n, v in _with_counts(state.query, state.forwards).items()}
    return {"model": arrays, "__author__": "MOCO", "matching_heuristics": True}


def _backbone(state, prefix=""):
    """The query encoder's backbone under PyTorch's names with a prefix, without the head."""
    arrays = {n: v for n, v in state.query.items() if not n.startswith("fc.")}
    return {f"{prefix}{n}": v for n, v in _with_counts(arrays, state.forwards).items()}
