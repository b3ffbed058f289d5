"""Export of encoders as SavedModels for TensorFlow Serving."""

import json
import os
import tempfile
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.backbones.encoder import Encoder
from moco_tf.interop import warmup
from moco_tf.interop.serving_graph import Server, features_and_embeddings
from moco_tf.log import log

BATCHES = (1, 2, 4, 8, 16, 32)  # the server pads its batches to one of these sizes

MODELS_CONFIG = """\
# tensorflow_model_server --model_config_file=THIS; in a container base_path is the mount
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
    encoder: Encoder,
    output: str,
    crop,
    *,
    classifier: tuple | None = None,
    bfloat16: bool = False,
    jit_compile: bool = False,
    default: str = "embed_bytes",
    metadata: dict | None = None,
) -> str:
    """Writes an encoder as OUTPUT/VERSION/, the next version, for TensorFlow Serving.

    It also writes OUTPUT/models.config and OUTPUT/batching.config, samples for the server's flags.
    A version is written under a temporary name and renamed, so a server that polls a local folder
    sees complete versions only. In gs:// renaming copies, so a server may see an incomplete one.

    Args:
        encoder: `Encoder` to export.
        output: folder, local or gs://.
        crop: `encoders.Preprocessing`, which becomes part of the graph.
        classifier: `(weights CxK, bias K, names of the K classes)` on the features; adds the
            signatures classify_*.
        bfloat16: compute the network in bfloat16.
        jit_compile: compile the network by XLA, for each batch size.
        default: name of the signature that requests without a name get.
        metadata: JSON-ready dict, saved with the model as an asset.

    Returns:
        Path of the version's folder.

    Raises:
        ValueError: if embeddings in bfloat16 or under XLA are too far from those in float32.
    """
    network = with_policy(encoder.features_and_embeddings(), "float32")
    computed = with_policy(network, "mixed_bfloat16") if bfloat16 else network
    server = Server(computed, crop, jit_compile, classifier)
    if bfloat16 or jit_compile:
        _require_close(server, Server(network, crop), 1e-2 if bfloat16 else 1e-4, crop)
    signatures = server.signatures(default)
    batches = BATCHES if jit_compile else (1, BATCHES[-1])
    requests = warmup.of_encoder(signatures, crop, batches)

    def check(path):
        size = crop.image_size_px
        images = tf.random.stateless_normal([2, size, size, 3], [0, 1])
        got = tf.saved_model.load(path).signatures["embed_tensors"](images)["embedding"]
        difference = float(np.abs(got - features_and_embeddings(network, images)[1]).max())
        if not difference <= (1e-2 if bfloat16 else 1e-4):
            raise ValueError(
                "The SavedModel must compute the encoder's embeddings. Received: a difference of "
                f"{difference:g} on random images. Nothing was written."
            )

    return write_version(server, signatures, output, metadata or {}, requests, check)


def write_version(
    server: tf.Module,
    signatures: dict,
    output: str,
    metadata: dict,
    requests: list[tuple],
    check: Callable[[str], None] = lambda path: None,
) -> str:
    """Writes a module as the next SavedModel version in a folder.

    Args:
        server: module that holds the variables.
        signatures: dict from names to the module's concrete functions.
        output: folder of the versions, local or gs://.
        metadata: JSON-ready dict, saved as an asset.
        requests: warm-up requests, see `warmup.write`.
        check: function of the path that is called before the version gets its name.

    Returns:
        Path of the version's folder.
    """
    tf.io.gfile.makedirs(output)
    temporary = os.path.join(output, f".new-{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            asset = os.path.join(folder, "metadata.json")
            storage.write_text(asset, json.dumps(metadata, indent=2) + "\n")
            server.metadata = tf.saved_model.Asset(asset)  # saving copies the file
            tf.saved_model.save(server, temporary, signatures=signatures)
        check(temporary)
        warmup.write(temporary, requests)
        path = _next_version(temporary, output)
    finally:
        if tf.io.gfile.exists(temporary):
            tf.io.gfile.rmtree(temporary)
    base_path = output if "://" in output else os.path.abspath(output)
    for name, text in (
        ("models.config", MODELS_CONFIG.format(path=base_path)),
        ("batching.config", BATCHING_CONFIG),
    ):
        storage.write_text(os.path.join(output, name), text)
    log.info("Signatures: %s", ", ".join(signatures))
    return path


def _next_version(temporary, output):
    """Renames a folder to the next version; retries if another process takes that number."""
    while True:
        names = [name.strip("/") for name in tf.io.gfile.listdir(output)]
        path = os.path.join(output, str(max(map(int, filter(str.isdigit, names)), default=0) + 1))
        try:
            tf.io.gfile.rename(temporary, path)
            return path
        except tf.errors.OpError:
            if not tf.io.gfile.exists(path):
                raise


def with_policy(network: keras.Model, policy: str) -> keras.Model:
    """A copy of a network that computes in another precision.

    Args:
        network: functional model.
        policy: name of a Keras dtype policy, such as "mixed_bfloat16".
    """

    def clone(layer):
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=clone)
        config = layer.get_config()
        # Embeddings stay in float32. Operations such as Add have no precision of their own.
        is_input = isinstance(layer, keras.layers.InputLayer)
        if layer.name != "embeddings" and "dtype" in config and not is_input:
            config["dtype"] = policy
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
            f"Embeddings in bfloat16 or under XLA must be within {tolerance:g} of those in "
            f"float32. Received: {difference:g} on random images. Leave bfloat16 and jit_compile "
            "out."
        )
