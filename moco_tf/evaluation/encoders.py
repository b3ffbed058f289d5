"""The encoder to evaluate: from a training workdir or a .keras file, or untrained."""

import dataclasses
import hashlib
import json
import os
import zipfile

import keras
import tensorflow as tf

from moco_tf import config as config_lib
from moco_tf import schema
from moco_tf.backbones import heads  # registers what a .keras file may hold  # noqa: F401
from moco_tf.evaluation.features import backbone_of


@dataclasses.dataclass(frozen=True)
class Loaded:
    """An encoder and where it comes from.

    Attributes:
        encoder: `keras.Model` of `backbones.heads.encoder`.
        path: its file.
        digest: `digest` of the encoder.
        run: `config.Config` of the run that made it, or None for a file without its workdir.
    """

    encoder: keras.Model
    path: str
    digest: str
    run: config_lib.Config | None


def load(checkpoint, random_init=False, seed=0):
    """Loads the encoder of a checkpoint; call it in the strategy's scope.

    Args:
        checkpoint: workdir of a train.py run, or an encoder's .keras file, local or gs://.
        random_init: new weights instead of the trained ones.
        seed: of the new weights.

    Returns:
        `Loaded`.

    Raises:
        ValueError: for anything else.
    """
    rule = "`--checkpoint` must be the workdir of a train.py run or an encoder's .keras file"
    path = checkpoint
    if not path.endswith(".keras"):
        path = os.path.join(checkpoint, "encoder.keras")
    if not tf.io.gfile.exists(path):
        raise ValueError(f"{rule}. Received: {checkpoint!r}; there is no {path}.")
    try:
        encoder = keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{rule}. Received: {path!r}. Keras says: {error}") from error
    layers = encoder.layers
    if len(layers) < 3 or not isinstance(layers[1], keras.Model) or len(encoder.outputs) != 1:
        raise ValueError(
            f"{rule}, a backbone with a head on it. Received: {path!r}, with the layers "
            f"{', '.join(layer.name for layer in layers[:5])}."
        )
    if random_init:
        keras.utils.set_random_seed(seed)
        encoder = keras.models.clone_model(encoder)
    return Loaded(encoder, path, digest(encoder), _run_of(path))


def digest(model):
    """SHA-256 of all weights of a model, hexadecimal: equal means equal bit for bit."""
    sha = hashlib.sha256()
    for variable in model.variables:
        if "seed_generator" not in variable.path:
            value = variable.numpy()
            sha.update(f"{variable.path} {value.dtype} {value.shape}".encode())
            sha.update(value.tobytes())
    return sha.hexdigest()


def with_bn_groups(backbone, group_size):
    """A copy of a backbone whose BN normalises `group_size` rows together, or all if None."""

    def clone(layer):
        config = layer.get_config()
        if "group_size" in config:
            config["group_size"] = group_size
        return type(layer).from_config(config)

    copy = keras.models.clone_model(backbone, clone_function=clone)
    copy.set_weights(backbone.get_weights())
    return copy


def require_backbone(loaded, name):
    """Raises ValueError unless the encoder's backbone has this name ("" for any)."""
    received = backbone_of(loaded.encoder).name
    if name and name != received:
        raise ValueError(
            f"The checkpoint's backbone must be {name}, as `config.backbone` says. Received: "
            f"{received}, of {loaded.path}."
        )


def _run_of(path):
    config = os.path.join(os.path.dirname(path), "config.json")
    if not tf.io.gfile.exists(config):
        return None
    with tf.io.gfile.GFile(config) as file:
        values = json.load(file)
    return None if "task" in values else schema.from_dict(config_lib.Config, values)
