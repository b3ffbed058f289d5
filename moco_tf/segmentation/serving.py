"""Export of a segmentation as a SavedModel: encoded images in, label maps out."""

import os
from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

from moco_tf.data.image_ops import normalize
from moco_tf.evaluation import results
from moco_tf.interop import savedmodel, serving_graph, warmup
from moco_tf.segmentation import networks  # registers its layers  # noqa: F401
from moco_tf.segmentation.segmenter import make_predict


class SegmentationServer(tf.Module):
    """Serving signatures of a segmentation network.

    Args:
        network: `keras.Model` from normalized images to logits.
        mean: mean of each channel, in [0, 1].
        std: standard deviation of each channel, in [0, 1].
    """

    def __init__(self, network: keras.Model, mean: Iterable[float], std: Iterable[float]):
        super().__init__()
        # Variables that a signature uses must be reachable from the module.
        self.weights = [v.value for v in network.variables]

        def prepare(images):
            return normalize(tf.cast(images, tf.float32) / 255, tuple(mean), tuple(std))

        self._predict = make_predict(network, prepare, (1.0,), False, 1)

    def signatures(self) -> dict[str, Callable]:
        """Dict from the names of the signatures to concrete functions."""
        by_bytes = tf.function(self._of_bytes, autograph=False).get_concrete_function(
            tf.TensorSpec([None], tf.string, "image_bytes")
        )
        by_images = tf.function(self._of_images, autograph=False).get_concrete_function(
            tf.TensorSpec([None, None, None, 3], tf.uint8, "images")
        )
        return {
            "serving_default": by_bytes,
            "segment_bytes": by_bytes,
            "segment_images": by_images,
        }

    def _of_images(self, images):
        """Images, uint8 NxHxWx3, to label maps, uint8 NxHxW."""
        # TensorFlow's convolutions fail on no image at all: then one is blank, of a pixel at least.
        n, height, width = (tf.shape(images)[axis] for axis in range(3))
        missing = [[0, tf.cast(size < 1, tf.int32)] for size in (n, height, width)]
        labels = self._predict(tf.pad(images, [*missing, [0, 0]]))
        return {"labels": tf.cast(labels[:n, :height, :width], tf.uint8)}

    def _of_bytes(self, encoded):
        """N encoded images of any sizes to N label maps as PNG; "" where ok is false."""

        def segment(content):
            image, ok = serving_graph.decode_or_blank(content)
            labels = self._of_images(image[None])["labels"][0]
            return tf.where(ok, tf.io.encode_png(labels[..., None]), ""), ok

        spec = (tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool))
        pngs, ok = tf.map_fn(segment, encoded, fn_output_signature=spec)
        return {"label_png": pngs, "ok": ok}


def export_segmentation(workdir: str, output: str) -> str:
    """Writes a finished segmentation as OUTPUT/VERSION/, see `interop.export_savedmodel`.

    Args:
        workdir: folder of a finished `evaluate.py --task=segmentation`.
        output: folder, local or gs://.

    Returns:
        Path of the version's folder.

    Raises:
        ValueError: if the head is not the FCN.
    """
    record = results.read(workdir)
    if record["config"]["head"] != "fcn":
        raise ValueError(
            "Only head=fcn can be exported as a SavedModel, because keras-cv's layers do not take "
            f"images of any size. Received: head={record['config']['head']}."
        )
    network = keras.models.load_model(os.path.join(workdir, "segmenter.keras"), compile=False)
    server = SegmentationServer(network, *record["normalization"].values())
    names = ("checkpoint", "config", "normalization", "metrics", "versions")
    metadata = {name: record[name] for name in names}
    metadata["classes"] = record["data"]["class_names"]
    signatures = server.signatures()
    return savedmodel.write_version(
        server, signatures, output, metadata, warmup.of_one_image(signatures)
    )
