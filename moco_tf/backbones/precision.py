"""The precision that networks compute in: new ones, copies, and products on NVIDIA GPUs."""

import contextlib
import pathlib
from collections.abc import Iterator

import keras
import tensorflow as tf

HALVES = ("bfloat16", "float16", "mixed_bfloat16", "mixed_float16")


def has_amx() -> bool:
    """Whether the CPU multiplies bfloat16 in tiles (AMX: Intel Xeons from 2023 on).

    Other CPUs compute in bfloat16 several times slower than in float32.
    """
    cpu = pathlib.Path("/proc/cpuinfo")
    return cpu.exists() and "amx_bf16" in cpu.read_text()


@contextlib.contextmanager
def precision(policy: str | keras.DTypePolicy) -> Iterator[None]:
    """Layers made in this block compute in `policy`; afterwards Keras' setting is what it was.

    Args:
        policy: Keras dtype policy or its name, such as "float32" or "mixed_bfloat16".

    Example:

        with precision("float32"):
            backbone = resnet.resnet50()
    """
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """In this block NVIDIA GPUs multiply float32 in all its 24 bits, not in TF32's 11.

    Example:

        with without_tf32():
            cosine = tf.matmul(queries, bank, transpose_b=True)
    """
    previous = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(previous)


def in_float32(model: keras.Model) -> keras.Model:
    """A copy of a model that computes in float32, or the model itself if it does already.

    Args:
        model: model whose layers Keras can load from a file; its weights are float32.

    Returns:
        Model of the same class with the same weights and the same names.

    Example:

        backbone = in_float32(resnet.resnet50(dtype="mixed_bfloat16"))
    """
    config = keras.saving.serialize_keras_object(model)
    wanted = _with_float32(config)
    if wanted == config:
        return model
    copy = keras.saving.deserialize_keras_object(wanted)
    copy.set_weights(model.get_weights())
    return copy


def _with_float32(config):
    """A serialized object whose dtype policies and inputs are all float32."""
    if isinstance(config, (list, tuple)):
        return type(config)(_with_float32(part) for part in config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return config | {"config": {"name": "float32"}}
    config = {name: _with_float32(part) for name, part in config.items()}
    if config.get("dtype") in HALVES:
        config["dtype"] = "float32"
    return config
