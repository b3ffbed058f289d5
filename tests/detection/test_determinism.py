"""A deterministic detector asks a GPU only for gradients that have a deterministic kernel."""

import keras
import pytest
import shapes
import tensorflow as tf
from detection_runs import make_config, write_set
from small_resnet import four_stages

from moco_tf.backbones import heads
from moco_tf.backbones.encoder import Encoder
from moco_tf.detection.task import DetectionTask


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """The file of an untrained encoder."""
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.keras"
    Encoder(four_stages(), heads.mlp(8)).save(path)
    return str(path)


@pytest.mark.parametrize("architecture", (pytest.param("c4", marks=pytest.mark.slow), "fpn"))
def test_a_step_has_only_ops_with_a_deterministic_gradient(encoder, tmp_path, architecture):
    """tensorflow/tensorflow, "is not currently available" in tensorflow/core/kernels: image/
    crop_and_resize_op.cc, fused_batch_norm_op.cc (when training is disabled), image/
    resize_nearest_neighbor_op.cc.
    """
    data = [write_set(tmp_path / name, 4, 0) for name in ("train", "test")]
    options = {"architecture": architecture, "frozen_bn": True, "deterministic": True}
    config = make_config(data, data__check_images=False, **options)
    task = DetectionTask(config, encoder, str(tmp_path), tf.distribute.get_strategy())
    task.prepare()
    step = tf.function(task.model.step, autograph=False)
    definition = step.get_concrete_function(shapes.batch(0, 2)).graph.as_graph_def()
    nodes = [node for f in definition.library.function for node in f.node_def]
    nodes = [*nodes, *definition.node]
    ops = {node.op for node in nodes}
    assert "Einsum" in ops and "Conv2DBackpropFilter" in ops
    assert not [op for op in ops if op.startswith(("CropAndResize", "ResizeNearestNeighborGrad"))]
    assert not [
        node.name
        for node in nodes
        if node.op.startswith("FusedBatchNorm") and not node.attr["is_training"].b
    ]
