"""Export of encoders to ONNX, by tf2onnx."""

import functools

import tensorflow as tf

from moco_tf import storage
from moco_tf.backbones.encoder import Encoder
from moco_tf.interop.savedmodel import with_policy
from moco_tf.interop.serving_graph import features_and_embeddings

OPSET = 17


def export_onnx(encoder: Encoder, output: str) -> None:
    """Writes an encoder as an ONNX file.

    The input is `images`, normalized, float32 NxHxWx3 with N, H and W free. The outputs are
    `feature` NxC, from the backbone, and `embedding` NxD of unit length.

    Args:
        encoder: `Encoder` to export.
        output: path of the file, local or gs://.

    Raises:
        ValueError: if tf2onnx is not installed.
    """
    try:
        import tf2onnx
    except ImportError as error:
        raise ValueError('Export to ONNX needs tf2onnx: pip install ".[onnx]"') from error
    network = with_policy(encoder.features_and_embeddings(), "float32")
    network = functools.partial(features_and_embeddings, network)
    spec = tf.TensorSpec([None, None, None, 3], tf.float32, "images")

    @tf.function(input_signature=[spec], autograph=False)
    def run(images):
        return dict(zip(("feature", "embedding"), network(images), strict=False))

    model, _ = tf2onnx.convert.from_function(run, input_signature=[spec], opset=OPSET)
    storage.write_bytes(output, model.SerializeToString())
