"""Requests that TensorFlow Serving answers for itself before it takes those of others."""

import os

import tensorflow as tf

from moco_tf.log import log

IMAGE_PX = 128  # of what networks for any size are warmed up with


def write(version, requests):
    """Writes VERSION/assets.extra/tf_serving_warmup_requests.

    It needs the protocol's own messages, of tensorflow-serving-api; without them it says so.

    Args:
        version: folder of the SavedModel.
        requests: list of `(signature, name of its input, value)`.

    Source: tensorflow.org/tfx/serving/saved_model_warmup
    """
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError:
        log.warning(
            "The model has no warm-up requests: its first answers will be slow. They need the "
            'protocol of the server: pip install ".[serving]"'
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
            asked = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=asked)
            writer.write(record.SerializeToString())


def of_encoder(signatures, crop, batches):
    """Requests of an encoder's signatures, one for each number of images in `batches`."""
    image = noise(crop.resize_px)
    values = {
        "image_bytes": lambda n: tf.repeat(tf.io.encode_jpeg(image)[None], n),
        "images": lambda n: tf.repeat(image[None], n, axis=0),
        "tensors": lambda n: tf.zeros([n, crop.image_size_px, crop.image_size_px, 3]),
    }
    inputs = {name: name.rpartition("_")[2] for name in signatures}
    inputs = {name: kind if kind in values else "image_bytes" for name, kind in inputs.items()}
    return [(name, kind, values[kind](n)) for name, kind in inputs.items() for n in batches]


def of_one_image(signatures):
    """Requests of one image, for signatures *_images and others, which take bytes."""
    image = noise(IMAGE_PX)
    of_bytes, of_images = tf.io.encode_jpeg(image)[None], image[None]
    return [
        (name, "images", of_images) if name.endswith("_images") else (name, "image_bytes", of_bytes)
        for name in signatures
    ]


def noise(size):
    """A random image, uint8 size x size x 3."""
    pixels = tf.random.stateless_uniform([size, size, 3], [0, 0], 0, 256, tf.int32)
    return tf.cast(pixels, tf.uint8)
