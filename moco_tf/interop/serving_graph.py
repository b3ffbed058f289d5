"""The graph of a SavedModel: encoded images to embeddings, without Python callbacks."""

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from moco_tf.data import image_ops
from moco_tf.data.tfdata import no_autograph

INPUTS = {
    "bytes": tf.TensorSpec([None], tf.string, "image_bytes"),
    "images": tf.TensorSpec([None, None, None, 3], tf.uint8, "images"),
    "tensors": tf.TensorSpec([None, None, None, 3], tf.float32, "tensors"),
}


def features_and_embeddings(network: keras.Model, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Features and unit-length embeddings of normalized images, in float32.

    Args:
        network: model from `Encoder.features_and_embeddings()`.
        images: float32 NxHxWx3.

    Returns:
        Features NxC, and embeddings NxD of unit length.
    """
    features, embeddings = (tf.cast(x, tf.float32) for x in network(images, training=False))
    return features, tf.math.l2_normalize(embeddings, axis=1)


def decode_or_blank(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes an image; one that cannot be decoded becomes one black pixel.

    Args:
        content: encoded image, string scalar.

    Returns:
        The image, uint8 HxWx3, and whether it could be decoded, bool scalar.
    """

    @no_autograph
    def decode(content):
        return image_ops.decode(content), True

    # A failing op fails the whole batch; in a data set it only drops its element.
    data = tf.data.Dataset.from_tensors(content).map(decode).ignore_errors(log_warning=False)
    blank = tf.data.Dataset.from_tensors((tf.zeros([1, 1, 3], tf.uint8), False))
    return data.concatenate(blank).take(1).get_single_element()


class Server(tf.Module):
    """Serving signatures of an encoder with its preprocessing.

    Args:
        network: model from `Encoder.features_and_embeddings()`.
        crop: `encoders.Preprocessing` of the images.
        jit_compile: compile the network by XLA, once for each batch size.
        classifier: `(weights CxK, bias K, names of the K classes)`, or None.
    """

    def __init__(self, network, crop, jit_compile=False, classifier=None):
        super().__init__()
        self._crop = crop
        self._functions = {}
        # Variables that a signature uses must be reachable from the module.
        self.weights = [v.value for v in network.variables]
        run = functools.partial(features_and_embeddings, network)
        self._run = tf.function(run, jit_compile=jit_compile, autograph=False)
        self.classifier = None
        if classifier:
            weights, bias, names = classifier
            self.classifier = tf.Variable(weights), tf.Variable(bias), tf.constant(names)

    def signatures(self, default: str = "embed_bytes") -> dict[str, Callable]:
        """Dict from the names of the signatures to concrete functions.

        Args:
            default: name of the signature that requests without a name get.
        """
        verbs = ("embed", "classify") if self.classifier else ("embed",)
        names = [f"{verb}_{name}" for verb in verbs for name in INPUTS]
        functions = {name: self.function(name) for name in names}
        return {"serving_default": functions[default], **functions}

    def function(self, name: str) -> Callable:
        """The concrete function of a signature, such as "embed_bytes"; compiled once."""
        if name not in self._functions:
            verb, _, input_name = name.partition("_")
            answer = {"embed": self._embed, "classify": self._classify}[verb]
            self._functions[name] = self._signature(answer, input_name, INPUTS[input_name])
        return self._functions[name]

    def _signature(self, answer, input_name, spec):
        prepare = {
            "bytes": self._of_bytes,
            "images": lambda images: (self._normalized(self._cropped(images)), None),
            "tensors": lambda images: (images, None),
        }[input_name]

        def serve(inputs):
            images, ok = prepare(inputs)
            # TensorFlow's fused convolutions fail on no image at all: then one is blank.
            n = tf.shape(images)[0]
            images = tf.pad(images, [[0, tf.cast(n < 1, tf.int32)], [0, 0], [0, 0], [0, 0]])
            features, embeddings = self._run(images)
            outputs = answer(features[:n], embeddings[:n])
            if ok is not None:
                outputs = {name: _where(ok, value) for name, value in outputs.items()}
                outputs["ok"] = ok
            return outputs

        return tf.function(serve, autograph=False).get_concrete_function(spec)

    def _embed(self, features, embeddings):
        return {"embedding": embeddings, "feature": features}

    def _classify(self, features, _):
        weights, bias, names = self.classifier
        scores = tf.nn.softmax(tf.matmul(features, weights) + bias)  # NxK
        label = tf.gather(names, tf.argmax(scores, axis=1))
        return {"scores": scores, "label": label}

    def _of_bytes(self, encoded):
        """Encoded images, string N, to normalized ones NxSxSx3, and which are valid, bool N."""
        size, count = self._crop.image_size_px, tf.size(encoded, tf.int64)

        def crop(row, content):
            image = self._crop.decode(content)
            return row, image_ops.resize_and_center_crop(image, self._crop.resize_px, size)

        # A failing op fails the whole batch; in a data set it only drops its element. The last
        # element serves a batch in which no image can be decoded.
        good = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
        good = good.map(tf.autograph.experimental.do_not_convert(crop), tf.data.AUTOTUNE)
        last = tf.data.Dataset.from_tensors((count, tf.zeros([size, size, 3], tf.uint8)))
        good = good.ignore_errors(log_warning=False).concatenate(last).batch(count + 1)
        rows, crops = good.get_single_element()
        crops = tf.scatter_nd(rows[:, None], tf.cast(crops, tf.int32), [count + 1, size, size, 3])
        ok = tf.scatter_nd(rows[:, None], tf.ones_like(rows), [count + 1]) > 0
        return self._normalized(crops[:-1]), ok[:-1]

    def _cropped(self, images):
        size, resize = self._crop.image_size_px, self._crop.resize_px
        return tf.map_fn(
            lambda image: image_ops.resize_and_center_crop(image, resize, size),
            images,
            fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8),
        )

    def _normalized(self, images):
        return self._crop.recipe.normalize(tf.cast(images, tf.float32) / 255)


def _where(ok, value):
    """`value` with zeros, or empty texts, in the rows that are not ok."""
    blank = tf.fill(tf.shape(value), "") if value.dtype == tf.string else tf.zeros_like(value)
    return tf.where(tf.reshape(ok, [-1] + [1] * (len(value.shape) - 1)), value, blank)
