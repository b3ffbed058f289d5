"""Embeddings of image files in Python, by the graph that a SavedModel serves."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.interop.serving_graph import Server
from moco_tf.log import log


class Embedder:
    """Function from images to unit-length embeddings; compiled once.

    Args:
        encoder: `Encoder`.
        crop: `encoders.Preprocessing` of the images.
    """

    def __init__(self, encoder: keras.Model, crop):
        self._server = Server(encoder.features_and_embeddings(), crop)
        self._width = encoder.output_shape[-1]

    def __call__(self, images: Sequence[str] | np.ndarray, batch_size: int) -> np.ndarray:
        """Arguments and result as in `encoders.Loaded.embed`."""
        if isinstance(images, str):
            raise ValueError(f"`images` must be a list of paths or an array. Received: {images!r}.")
        embed = self._of_arrays if isinstance(images, np.ndarray) else self._of_files
        blocks = [
            embed(images[first : first + batch_size]) for first in range(0, len(images), batch_size)
        ]
        return np.concatenate([np.zeros((0, self._width), np.float32), *blocks])

    def _of_arrays(self, images):
        if images.dtype != np.uint8:
            raise ValueError(
                f"`images` must be uint8, 0 to 255, or paths. Received: {images.dtype}."
            )
        return self._server.function("embed_images")(tf.constant(images))["embedding"].numpy()

    def _of_files(self, paths):
        contents = [_content(str(path)) for path in paths]
        outputs = self._server.function("embed_bytes")(tf.constant(contents))
        for path, ok in zip(paths, outputs["ok"].numpy(), strict=True):
            if not ok:
                log.warning("%s cannot be decoded: its embedding is zero.", path)
        return outputs["embedding"].numpy()


def _content(path):
    try:
        return storage.read_bytes(path)
    except (tf.errors.NotFoundError, tf.errors.FailedPreconditionError) as error:
        reason = "a folder" if tf.io.gfile.isdir(storage.utf8(path)) else "which does not exist"
        raise FileNotFoundError(
            f"`images` must be paths of image files. Received: {path!r}, {reason}."
        ) from error
