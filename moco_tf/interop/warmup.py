"""Requests that TensorFlow Serving answers for itself before it takes those of others."""

import os

import tensorflow as tf

from moco_tf.log import log


def write(version, signatures, crop, batches):
    """Writes VERSION/assets.extra/tf_serving_warmup_requests, one request a batch size.

    Args:
        version: folder of the SavedModel.
        signatures: dict of concrete functions.
        crop: `encoders.Preprocessing`.
        batches: sizes to ask for.

    It needs the protocol's own messages, of tensorflow-serving-api; without them it says so.

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
        for name in signatures:
            for count in batches:
                request = predict_pb2.PredictRequest()
                request.model_spec.name = "moco"
                request.model_spec.signature_name = name
                key, value = _input(name, count, crop)
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
                log_ = prediction_log_pb2.PredictLog(request=request)
                record = prediction_log_pb2.PredictionLog(predict_log=log_)
                writer.write(record.SerializeToString())


def _input(signature, count, crop):
    """Name and value of the input of a signature for `count` images."""
    if signature.endswith("_tensors"):
        size = crop.image_size_px
        return "tensors", tf.zeros([count, size, size, 3])
    size = crop.resize_px
    noise = tf.random.stateless_uniform([size, size, 3], [0, 0], 0, 256, tf.int32)
    image = tf.cast(noise, tf.uint8)
    if signature.endswith("_images"):
        return "images", tf.repeat(image[None], count, axis=0)
    return "image_bytes", tf.repeat(tf.io.encode_jpeg(image)[None], count)
