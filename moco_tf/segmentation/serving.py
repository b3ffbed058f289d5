"""A segmentation as a SavedModel: image bytes in, label maps out."""

import os

import keras
import tensorflow as tf

from moco_tf.data.image_ops import normalize
from moco_tf.evaluation import results
from moco_tf.interop import savedmodel, serving_graph, warmup
from moco_tf.segmentation import networks  # registers its layers  # noqa: F401
from moco_tf.segmentation.segmenter import make_predict


class SegmentationServer(tf.Module):
    """Signatures of a segmentation network, with nothing of Python in them.

    Args:
        network: `keras.Model` from normalised images to logits.
        mean, std: of the normalisation.
    """

    def __init__(self, network, mean, std):
        super().__init__()
        self.weights = [v.value for v in network.variables]  # must be reachable from here

        def prepare(images):
            return normalize(tf.cast(images, tf.float32) / 255, tuple(mean), tuple(std))

        self._predict = make_predict(network, prepare, (1.0,), False, 1)

    def signatures(self):
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
        """uint8 NxHxWx3 to the classes of the pixels, uint8 NxHxW."""
        labels = self._predict(images)
        return {"labels": tf.cast(labels, tf.uint8)}

    def _of_bytes(self, encoded):
        """N encoded images of any sizes to N label maps as PNG, "" where ok is false."""

        def one(content):
            image, ok = serving_graph.decode_or_blank(content)
            labels = self._of_images(image[None])["labels"][0]
            return tf.where(ok, tf.io.encode_png(labels[..., None]), ""), ok

        spec = (tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool))
        pngs, ok = tf.map_fn(one, encoded, fn_output_signature=spec)
        return {"label_png": pngs, "ok": ok}


def export_segmentation(workdir, output):
    """Writes a finished segmentation as OUTPUT/VERSION/, see `interop.export_savedmodel`.

    Args:
        workdir: of evaluate.py --task=segmentation, finished.
        output: folder, local or gs://.

    Returns:
        The version's folder.

    Raises:
        ValueError: for another head than the FCN.
    """
    record = results.read(workdir)
    if record["config"]["head"] != "fcn":
        raise ValueError(
            "A SavedModel takes images of any size, which keras-cv's layers do not: it can be made "
            f"of head=fcn. Received: head={record['config']['head']}."
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
