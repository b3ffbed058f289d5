"""A server of label maps answers a request without images, as one with images."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from moco_tf.segmentation.serving import SegmentationServer


@pytest.fixture(scope="module")
def signatures():
    # A bias and a ReLU: what TensorFlow fuses into a convolution that fails on no image.
    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(4, 1),
        ]
    )
    return SegmentationServer(network, (0.5,) * 3, (0.25,) * 3).signatures()


@pytest.mark.parametrize("size", [(8, 12), (0, 0)])
def test_no_image_gives_no_label_map(size, signatures):
    labels = signatures["segment_images"](tf.zeros([0, *size, 3], tf.uint8))["labels"]
    assert labels.shape == (0, *size) and labels.dtype == tf.uint8
    answer = signatures["segment_bytes"](tf.constant([], tf.string))
    assert answer["label_png"].shape == answer["ok"].shape == (0,)


def test_images_are_answered_as_before(signatures):
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), np.uint8)
    labels = signatures["segment_images"](tf.constant(images))["labels"].numpy()
    assert labels.shape == (2, 6, 9)
    pngs = [tf.io.encode_png(image).numpy() for image in images]
    answer = signatures["segment_bytes"](tf.constant(pngs))["label_png"].numpy()
    for png, label in zip(answer, labels, strict=True):
        np.testing.assert_array_equal(Image.open(io.BytesIO(png)), label)
