"""The precision that layers compute in while a network is built."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def precision(policy: str | keras.DTypePolicy) -> Iterator[None]:
    """Layers made in this block compute in `policy`; afterwards Keras' setting is what it was.

    Args:
        policy: Keras dtype policy or its name, such as "float32" or "mixed_bfloat16".

    Example:

        with precision("float32"):
            backbone = resnet.resnet50()
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
