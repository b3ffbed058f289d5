"""SavedModels for TensorFlow Serving."""

import json
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf

from moco_tf import checkpoint
from moco_tf.backbones.heads import before_and_after_head
from moco_tf.interop import warmup
from moco_tf.interop.serving_graph import Server
from moco_tf.log import log

BATCHES = (1, 2, 4, 8, 16, 32)  # sizes that the server rounds its batches up to

MODELS_CONFIG = """\
# tensorflow_model_server --model_config_file=THIS; in a container base_path is what is mounted
model_config_list {{
  config {{
    name: "moco"
    base_path: "{path}"
    model_platform: "tensorflow"
  }}
}}
"""
BATCHING_CONFIG = f"""\
# tensorflow_model_server --enable_batching --batching_parameters_file=THIS
max_batch_size {{ value: {BATCHES[-1]} }}
batch_timeout_micros {{ value: 5000 }}
max_enqueued_batches {{ value: 100 }}
{"".join(f"allowed_batch_sizes: {size}{chr(10)}" for size in BATCHES)}"""


def export_savedmodel(
    encoder,
    output,
    crop,
    *,
    classifier=None,
    bfloat16=False,
    jit_compile=False,
    metadata=None,
):
    """Writes an encoder as OUTPUT/VERSION/, the next version, for TensorFlow Serving.

    Beside the versions it writes models.config and batching.config, samples for the server's
    flags. A version is written under another name and renamed, so that a server that polls the
    folder sees it whole; in gs://, where renaming copies, it may not.

    Args:
        encoder: `keras.Model` of `backbones.heads.encoder`.
        output: folder, local or gs://.
        crop: `encoders.Preprocessing`, which is part of the graph.
        classifier: `(weights CxK, bias K, names of the K classes)` on its features; adds the
            signatures classify_*.
        bfloat16: compute the network in bfloat16.
        jit_compile: compile the network by XLA, for each batch size.
        metadata: JSON-ready dict that goes with the model as an asset.

    Returns:
        The version's folder.

    Raises:
        ValueError: if the variant asked for is too far from the encoder in float32.
    """
    network = before_and_after_head(encoder)
    server = Server(in_bfloat16(network) if bfloat16 else network, crop, jit_compile, classifier)
    if bfloat16 or jit_compile:
        _require_close(server, Server(network, crop), 1e-2 if bfloat16 else 1e-4, crop)
    signatures = server.signatures()
    tf.io.gfile.makedirs(output)
    versions = [int(n.strip("/")) for n in tf.io.gfile.listdir(output) if n.strip("/").isdigit()]
    path = os.path.join(output, str(max(versions, default=0) + 1))
    temporary = os.path.join(output, f".{os.path.basename(path)}-{os.getpid()}")
    with tempfile.TemporaryDirectory() as folder:
        asset = os.path.join(folder, "metadata.json")
        checkpoint.write_text(asset, json.dumps(metadata or {}, indent=2) + "\n")
        server.metadata = tf.saved_model.Asset(asset)  # which is copied
        tf.saved_model.save(server, temporary, signatures=signatures)
    warmup.write(temporary, signatures, crop, BATCHES if jit_compile else (1, BATCHES[-1]))
    tf.io.gfile.rename(temporary, path)
    where = output if "://" in output else os.path.abspath(output)
    for name, text in (
        ("models.config", MODELS_CONFIG.format(path=where)),
        ("batching.config", BATCHING_CONFIG),
    ):
        checkpoint.write_text(os.path.join(output, name), text)
    log.info("Signatures: %s", ", ".join(signatures))
    return path


def in_bfloat16(network):
    """A copy of a network that computes in bfloat16 with the same float32 weights."""

    def clone(layer):
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=clone)
        config = layer.get_config()
        # What ends in float32 does so on purpose: embeddings.
        if layer.name != "embeddings" and not isinstance(layer, keras.layers.InputLayer):
            config["dtype"] = "mixed_bfloat16"
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=clone)
    copy.set_weights(network.get_weights())
    return copy


def _require_close(server, reference, tolerance, crop):
    size = crop.image_size_px
    images = tf.random.stateless_normal([4, size, size, 3], [0, 0])
    got, want = (s.signatures()["embed_tensors"](images)["embedding"] for s in (server, reference))
    difference = float(np.abs(got - want).max())
    if not difference <= tolerance:
        raise ValueError(
            f"Embeddings of this variant must be within {tolerance:g} of those in float32. "
            f"Received: {difference:g} on random images. Leave bfloat16 and jit_compile out."
        )
