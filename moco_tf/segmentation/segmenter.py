"""Training and prediction of a segmentation network."""

from collections.abc import Callable

import keras
import tensorflow as tf

from moco_tf import distribute, updates
from moco_tf.segmentation.sources import IGNORED


class Segmenter(keras.Model):
    """Trains a segmentation network by the cross-entropy of the pixels.

    Args:
        network: `keras.Model` from normalized images NxHxWx3 to logits NxHxWxK.
        normalize: function from uint8 images to the network's input.
    """

    NAMES = ("loss", "pixel_accuracy")

    def __init__(self, network: keras.Model, normalize: Callable):
        super().__init__()
        self.network, self._normalize = network, normalize
        self.built = True

    def step(self, batch: dict) -> dict:
        """One update; the training loop calls it.

        Args:
            batch: dict of x: uint8 NxHxWx3, and label: int32 NxHxW, classes or `IGNORED`.

        Returns:
            Dict of this replica's loss (nats) and pixel accuracy in [0, 1], both over pixels that
            are not ignored.
        """
        label = batch["label"]
        counted = label != IGNORED
        # The mean is over the pixels of all replicas, whose numbers of pixels may differ.
        pixels = tf.reduce_sum(tf.cast(counted, tf.float32))
        mean = tf.maximum(distribute.mean(pixels), 1.0)

        def loss_fn():
            logits = self.network(self._normalize(batch["x"]), training=True)  # NxHxWxK
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                tf.where(counted, label, 0), logits
            )
            hits = counted & (tf.argmax(logits, axis=-1, output_type=tf.int32) == label)
            return {
                "loss": tf.reduce_sum(tf.where(counted, losses, 0.0)) / mean,
                "pixel_accuracy": tf.reduce_sum(tf.cast(hits, tf.float32)) / mean,
            }

        statistics = self.network.non_trainable_variables
        logs, _ = updates.minimize(
            self.optimizer, loss_fn, self.network.trainable_variables, statistics
        )
        # Inference needs one set of BN statistics, so average those of unsynchronized layers.
        distribute.average(statistics)
        return logs

    def call(self, images, training=False):
        """Logits, NxHxWxK."""
        return self.network(images, training=training)

    @property
    def trainable_variables(self):
        """Trainable variables of the network."""
        return self.network.trainable_variables


def make_predict(
    network: keras.Model, normalize: Callable, scales: tuple, flip: bool, multiple: int
) -> Callable:
    """Makes the function from images to the predicted classes of their pixels.

    Args:
        network: `keras.Model` from normalized images to logits.
        normalize: function from uint8 images to the network's input.
        scales: factors by which images are resized; probabilities are averaged over them.
        flip: also predict mirrored images, and average.
        multiple: image sizes of the network are multiples of it, px.

    Returns:
        Function from uint8 NxHxWx3 to int32 NxHxW.
    """

    def probabilities(images, size):
        logits = network(images, training=False)
        return tf.image.resize(tf.nn.softmax(logits), size)

    def predict(images):
        size = tf.shape(images)[1:3]
        x = normalize(images)
        total = 0.0
        for scale in scales:
            scaled = x
            if scale != 1:
                new = tf.cast(tf.round(tf.cast(size, tf.float32) * scale), tf.int32)
                new = tf.maximum((new + multiple // 2) // multiple, 1) * multiple
                scaled = tf.image.resize(x, new)  # XLA has no antialiasing
            total += probabilities(scaled, size)
            if flip:
                total += probabilities(scaled[:, :, ::-1], size)[:, :, ::-1]
        return tf.argmax(total, axis=-1, output_type=tf.int32)

    return predict
