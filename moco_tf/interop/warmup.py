"""Warm-up requests of a SavedModel, which TensorFlow Serving runs before it serves clients."""

import os
from collections.abc import Iterable

import tensorflow as tf

from moco_tf.log import log

IMAGE_PX = 128  # side of the warm-up image of networks that take any size


def write(version: str, requests: list[tuple]):
    """Writes VERSION/assets.extra/tf_serving_warmup_requests.

    Without the package tensorflow-serving-api you get a warning and no file.

    Args:
        version: folder of the SavedModel.
        requests: list of `(signature, name of its input, value)`.

    Source: tensorflow.org/tfx/serving/saved_model_warmup
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        log.warning(
            "The model has no warm-up requests, so its first answers will be slow. To write them, "
            'install the protocol of the server: pip install ".[serving]"'
        )
        return
    folder = os.path.join(version, "assets.extra")
    tf.io.gfile.makedirs(folder)
    with tf.io.TFRecordWriter(os.path.join(folder, "tf_serving_warmup_requests")) as writer:
        for signature, name, value in requests:
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "moco"
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log_entry = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log_entry)
            writer.write(record.SerializeToString())


def of_encoder(signatures: Iterable[str], crop, batches: Iterable[int]) -> list[tuple]:
    """Requests for an encoder's signatures, one for each number of images in `batches`.

    Args:
        signatures: names such as "embed_images".
        crop: `encoders.Preprocessing` of the images.
        batches: numbers of images in a request.
    """
    image = noise(crop.resize_px)
    values = {
        "image_bytes": lambda n: tf.repeat(tf.io.encode_jpeg(image)[None], n),
        "images": lambda n: tf.repeat(image[None], n, axis=0),
        "tensors": lambda n: tf.zeros([n, crop.image_size_px, crop.image_size_px, 3]),
    }
    inputs = {name: name.rpartition("_")[2] for name in signatures}
    inputs = {name: x if x in values else "image_bytes" for name, x in inputs.items()}
    return [(name, x, values[x](n)) for name, x in inputs.items() for n in batches]


def of_one_image(signatures: Iterable[str]) -> list[tuple]:
    """Requests of one image: pixels for signatures *_images, encoded bytes for the others."""
    image = noise(IMAGE_PX)
    encoded, pixels = tf.io.encode_jpeg(image)[None], image[None]
    return [
        (name, "images", pixels) if name.endswith("_images") else (name, "image_bytes", encoded)
        for name in signatures
    ]


def noise(size: int) -> tf.Tensor:
    """A random image, uint8 size x size x 3."""
    pixels = tf.random.stateless_uniform([size, size, 3], [0, 0], 0, 256, tf.int32)
    return tf.cast(pixels, tf.uint8)
