"""Content of the source "synthetic:fabrics": generated images of striped and checked cloth.

A cloth has a weave of two threads, which are nearly gray, and stripes of two dyes. The hue of the
stripes on top is the class. It is hidden at first: the brightness and the pattern, random for each
image, are far stronger. But crops and color jitter change these and keep the hue, so that an
encoder finds it by learning to recognize a cloth in two views.
"""

import colorsys

import numpy as np

DYES = ("red", "yellow", "green", "cyan", "blue", "magenta")
HUE_SPREAD = 0.01  # standard deviation of a class' hue; classes are 1/6 apart
THREAD_SATURATION, DYE_SATURATION = (0.0, 0.1), (0.12, 0.25)
THREAD_PX, STRIPE_PX = (5, 9), (8, 14)  # periods
STRIPE_SHARE = 0.35  # of a period

# A weave, by two waves in -1..1: positive where the light thread is on top.
WEAVES = (
    lambda a, b: a,
    lambda a, b: np.minimum(a, b) + 0.2,
    lambda a, b: np.maximum(a, b) - 0.5,
    lambda a, b: 1.5 * a * b,
)


def fabrics(num_images: int, seed: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Draws images of cloth.

    Args:
        num_images: number of images.
        seed: the same seed gives the same images.
        size: side of the images, px.

    Returns:
        `(images, labels)`: uint8 num_images x size x size x 3, and int64 in 0..5, numbers of
        `DYES`.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(DYES), size=num_images)
    images = np.empty((num_images, size, size, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        class_hue = label / len(DYES) + rng.normal(0, HUE_SPREAD)
        dark = _color(rng, rng.random(), THREAD_SATURATION, (0.15, 0.5))
        light = _color(rng, rng.random(), THREAD_SATURATION, (0.5, 1.0))
        (a, period), (b, _) = _wave(rng, size, THREAD_PX), _wave(rng, size, THREAD_PX)
        weave = WEAVES[rng.integers(len(WEAVES))](a, b)
        canvas = dark + _coverage(weave, period / 4) * (light - dark)
        for hue in (rng.random(), class_hue):
            color = _color(rng, hue, DYE_SATURATION, (0.15, 1.0))
            stripes, period = _wave(rng, size, STRIPE_PX)
            canvas += _coverage(stripes - np.cos(np.pi * STRIPE_SHARE), period / 6) * (
                color - canvas
            )
        image[:] = canvas * 255
    return images, labels


def _color(rng, hue, saturation, value):
    """An RGB color of a hue, and of a random saturation and value in the given ranges."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(*saturation), rng.uniform(*value)))


def _wave(rng, size, periods):
    """A plane wave in -1..1, size x size, of random direction and phase, and its period in px."""
    y, x = np.mgrid[:size, :size]
    angle, phase = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    period = np.exp(rng.uniform(*np.log(periods)))
    distance = np.cos(angle) * x + np.sin(angle) * y
    return np.cos(2 * np.pi * distance / period + phase), period


def _coverage(height, slope):
    """Shares of the pixels, size x size x 1, where `height` is positive: edges are soft."""
    return np.clip(height * slope + 0.5, 0, 1)[..., None]
