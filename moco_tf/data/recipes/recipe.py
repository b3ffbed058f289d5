"""What an augmentation recipe is: geometry on the host, photometric ops anywhere.

All randomness is one vector of uniform numbers per view, drawn on the host from (seed,
sample index, view). The ops compute their parameters from it, so that they give
the same pixels on host and device.
"""

import dataclasses
import math
from typing import ClassVar

import tensorflow as tf

from moco_tf.data import image_ops
from moco_tf.data.random_key import random_key

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Crop of a random share of the area and ratio, and horizontal flip with probability .5."""

    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    num_draws: ClassVar[int] = 23

    def __call__(self, image, u, size):
        """uint8 HxWx3 and 23 uniform numbers to uint8 size x size x 3."""
        height, width = tf.unstack(tf.shape(image)[:2])
        box = image_ops.random_crop_box(u[:22], height, width, self.scale, self.ratio)
        crop = image_ops.crop_and_resize(image, box, size)
        crop = tf.cond(u[22] < 0.5, lambda: tf.reverse(crop, [1]), lambda: crop)
        return tf.ensure_shape(crop, [size, size, 3])


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation by factors 1 +- value, hue by +- `hue` of the circle."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    p: float = 1.0
    num_draws: ClassVar[int] = 9

    def __call__(self, x, u):
        values = (self.brightness, self.contrast, self.saturation)
        low = tf.constant([max(0.0, 1 - value) for value in values] + [-self.hue])
        high = tf.constant([1 + value for value in values] + [self.hue])
        factors = low + u[:, 1:5] * (high - low)
        order = tf.argsort(u[:, 5:9], axis=1)
        return _apply(u[:, 0] < self.p, lambda: image_ops.color_jitter(x, factors, order), x)


@dataclasses.dataclass(frozen=True)
class Grayscale:
    """Grayscale, with probability p."""

    p: float
    num_draws: ClassVar[int] = 1

    def __call__(self, x, u):
        return _apply(u[:, 0] < self.p, lambda: image_ops.grayscale(x), x)


@dataclasses.dataclass(frozen=True)
class GaussianBlur:
    """Gaussian blur of a sigma drawn uniformly from a range in px, with probability p."""

    sigma: tuple[float, float]
    p: float
    num_draws: ClassVar[int] = 2

    def __call__(self, x, u):
        sigma = self.sigma[0] + u[:, 1] * (self.sigma[1] - self.sigma[0])
        radius = math.ceil(3 * self.sigma[1])
        return _apply(u[:, 0] < self.p, lambda: image_ops.gaussian_blur(x, sigma, radius), x)


def _apply(chosen, op, x):
    """`op()` for the chosen images (bool N), `x` for the others."""
    if x.shape[0] == 1:  # one image: skip the work
        return tf.ensure_shape(tf.cond(chosen[0], op, lambda: x), x.shape)
    return tf.where(tf.reshape(chosen, [-1, 1, 1, 1]), op(), x)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Ordered ops that make one random view of an image.

    Attributes:
        crop: the geometry, from an image of any size to a square crop.
        photometric_ops: applied in order to float images in [0, 1].
        mean, std: of the channels, for the normalisation at the end.
    """

    crop: RandomResizedCrop
    photometric_ops: tuple
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def num_draws(self):
        """Length of the vector of uniform numbers that makes one view."""
        return self.crop.num_draws + sum(op.num_draws for op in self.photometric_ops)

    def draw(self, seed, index, view):
        """Uniform numbers in [0, 1) for one view: float32, num_draws.

        Args:
            seed: int, of the run.
            index: int64, sample index: step * global batch + row, counted over the whole run.
            view: 0 (query) or 1 (key).
        """
        key = random_key("augmentation", seed, 2 * tf.cast(index, tf.int64) + view)
        return tf.random.stateless_uniform([self.num_draws], key, alg="philox")

    def geometry(self, image, u, size):
        """Crops, resizes and flips uint8 HxWx3 to uint8 size x size x 3. On the host."""
        return self.crop(image, u[: self.crop.num_draws], size)

    def photometric(self, images, u):
        """Colors, blurs and normalises a batch. On host or device.

        Args:
            images: uint8 NxSxSx3, from `geometry`.
            u: float32 N x num_draws, the same numbers as given to `geometry`.

        Returns:
            float32 NxSxSx3.
        """
        x = image_ops.to_planes(images)
        start = self.crop.num_draws
        for op in self.photometric_ops:
            x = op(x, u[:, start : start + op.num_draws])
            start += op.num_draws
        return self.normalize(image_ops.from_planes(x))

    def normalize(self, x):
        """Float images in [0, 1] to zero mean and unit variance per channel."""
        return image_ops.normalize(x, self.mean, self.std)
