"""Export to SavedModel, ONNX and PyTorch formats, and import of PyTorch checkpoints."""

from moco_tf.interop.importing import import_torch
from moco_tf.interop.onnx import export_onnx
from moco_tf.interop.plain_keras import plain_keras
from moco_tf.interop.savedmodel import export_savedmodel
from moco_tf.interop.torch_export import (
    export_detectron2,
    export_mmdetection,
    export_official,
    export_timm,
    export_torchvision,
    export_torchvision_detection,
)

__all__ = [
    "export_detectron2",
    "export_mmdetection",
    "export_official",
    "export_onnx",
    "export_savedmodel",
    "export_timm",
    "export_torchvision",
    "export_torchvision_detection",
    "import_torch",
    "plain_keras",
]
