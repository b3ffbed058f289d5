"""Export of encoders to ONNX, by tf2onnx."""

import functools

import numpy as np
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
        ValueError: if tf2onnx is not installed, or if the file would compute something else.
    """
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise ValueError('Export to ONNX needs packages: pip install ".[onnx]"') from error
    size = encoder.image_size_px
    channels = encoder.input_shape[-1]
    network = with_policy(encoder.features_and_embeddings(), "float32")
    network = functools.partial(features_and_embeddings, network)
    spec = tf.TensorSpec([None, None, None, channels], tf.float32, "images")

    @tf.function(input_signature=[spec], autograph=False)
    def run(images):
        return dict(zip(("feature", "embedding"), network(images), strict=False))

    model, _ = tf2onnx.convert.from_function(run, input_signature=[spec], opset=OPSET)
    images = np.random.default_rng(0).normal(size=(2, size or 64, size or 64, channels))
    _require_equal(onnxruntime.InferenceSession, model, network, images.astype(np.float32))
    storage.write_bytes(output, model.SerializeToString())


def _require_equal(make_session, model, network, images):
    """Runs the model once against the network, and refuses it if it cannot or differs."""
    rule = "The ONNX file must compute what the encoder computes"
    inputs = [value.name for value in model.graph.input]
    if inputs != ["images"]:
        raise ValueError(
            f"{rule} from images alone. Received from tf2onnx: the inputs {', '.join(inputs)}. "
            "Constants of a layer became inputs, such as those of `keras.layers.Normalization` in "
            "EfficientNet. Export a SavedModel, or build the backbone without that layer."
        )
    session = make_session(model.SerializeToString())
    got = session.run(["feature", "embedding"], {"images": images})
    for a, b in zip(got, network(images), strict=True):
        difference = float(np.abs(a - b).max())
        if not difference <= 1e-3 * float(np.abs(b).max()):
            raise ValueError(f"{rule}. Received: a difference of {difference:g} on random images.")
