"""Encoders and runs to the files of PyTorch and of the detectors built on it."""

import pickle

from moco_tf import checkpoint
from moco_tf.interop import layouts, torch_file


def export_official(state, output, arch, config=None):
    """What main_moco.py saves and main_lincls.py reads: `module.encoder_q.`... and all else.

    Args:
        state: `layouts.State`; without key encoder and queue the file has none.
        output: path of the file, local or gs://.
        arch: name of the backbone, such as "resnet50".
        config: `Config` of the run, for the optimizer's settings; with a velocity only.
    """
    group = {}
    if config:
        o = config.optimizer
        group["lr"] = o.learning_rate * config.batch_size / o.reference_batch
        group |= {"momentum": o.momentum, "weight_decay": o.weight_decay}
    torch_file.write(output, layouts.official(state, arch, group))


def export_torchvision(state, output):
    """A plain state dict of the backbone, for `resnet50().load_state_dict(..., strict=False)`."""
    torch_file.write(output, layouts.backbone(state))


def export_torchvision_detection(state, output):
    """The backbone in torchvision's Faster, Mask and Keypoint R-CNN with an FPN."""
    torch_file.write(output, layouts.backbone(state, "backbone.body."))


def export_mmdetection(state, output):
    """For `init_cfg=dict(type="Pretrained", checkpoint=..., prefix="backbone.")` of mmdetection."""
    torch_file.write(output, {"state_dict": layouts.backbone(state, "backbone."), "meta": {}})


def export_detectron2(state, output):
    """The pickle of NumPy arrays that the reference's converter makes for detectron2."""
    checkpoint.write_bytes(output, pickle.dumps(layouts.detectron2(state)))
