"""A segmentation as a SavedModel: image bytes in, label maps out."""

import os

import keras
import tensorflow as tf

from moco_tf import image_ops
from moco_tf.evaluation import results
from moco_tf.image_ops import normalize
from moco_tf.input_pipeline import plain
from moco_tf.interop import savedmodel, warmup
from moco_tf.transfer.segmentation import networks  # registers its layers  # noqa: F401
from moco_tf.transfer.segmentation.segmenter import make_predict

WARMUP_PX = 128


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
            image, ok = _decode_or_blank(content)
            labels = self._of_images(image[None])["labels"][0]
            return tf.where(ok, tf.io.encode_png(labels[..., None]), ""), ok

        spec = (tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.bool))
        pngs, ok = tf.map_fn(one, encoded, fn_output_signature=spec)
        return {"label_png": pngs, "ok": ok}


def _decode_or_blank(content):
    """An image and true; one black pixel and false if it cannot be decoded."""

    @plain
    def decode(content):
        return image_ops.decode(content), True

    # An op that fails would fail the batch; in a data set it only loses its element.
    data = tf.data.Dataset.from_tensors(content).map(decode).ignore_errors(log_warning=False)
    blank = tf.data.Dataset.from_tensors((tf.zeros([1, 1, 3], tf.uint8), False))
    return data.concatenate(blank).take(1).get_single_element()


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
    found = results.read(workdir)
    if found["config"]["head"] != "fcn":
        raise ValueError(
            "A SavedModel takes images of any size, which keras-cv's layers do not: it can be made "
            f"of head=fcn. Received: head={found['config']['head']}."
        )
    network = keras.models.load_model(os.path.join(workdir, "segmenter.keras"), compile=False)
    server = SegmentationServer(network, *found["normalization"].values())
    names = ("checkpoint", "config", "normalization", "metrics", "versions")
    metadata = {name: found[name] for name in names}
    metadata["classes"] = found["data"]["class_names"]
    signatures = server.signatures()
    image = warmup.noise(WARMUP_PX)
    requests = [(name, *_input(image, by_bytes=not name.endswith("images"))) for name in signatures]
    return savedmodel.write_version(server, signatures, output, metadata, requests)


def _input(image, by_bytes):
    """Name and value of an input of one image."""
    return ("image_bytes", tf.io.encode_jpeg(image)[None]) if by_bytes else ("images", image[None])
