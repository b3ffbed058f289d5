"""Generated images, and the classes that they show."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageColor

from moco_tf.data import sources
from moco_tf.data.sources import synthetic


@pytest.mark.parametrize("draw", [synthetic.shapes, synthetic.fabrics])
def test_generated_images_are_a_function_of_the_seed(draw):
    a, b, c = (draw(4, seed)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_a_cloth_has_the_hue_of_its_class():
    images, labels = synthetic.fabrics(120, seed=0)
    names = sources.open_source("synthetic:fabrics").classes
    pure = [ImageColor.getrgb(name) for name in names]
    hues = np.array([colorsys.rgb_to_hsv(*(c / 255 for c in color))[0] for color in pure])
    shares = np.zeros((len(names), len(names)))  # of pixels near the hue of each class
    for image, label in zip(images, labels, strict=True):
        hue, saturation, _ = np.asarray(Image.fromarray(image).convert("HSV")).reshape(-1, 3).T
        distance = np.abs(hue[saturation > 30, None] / 255 - hues)
        near = np.minimum(distance, 1 - distance) < 0.04
        shares[label] += near.mean(axis=0) if len(near) else 0
    assert list(shares.argmax(axis=1)) == list(range(len(names)))
