"""Augmentation recipes: a random crop, color and blur ops in order, normalization.

All randomness of a view is one vector of uniform numbers, its draws, made from (seed, slot, view).
Each op computes its parameters from its part of the draws. So an op gives the same pixels on host
and device, and a run that resumes continues with the same pixels.

To write an op of your own, see `PhotometricOp`; to put ops together, see `Recipe`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar, Protocol

import tensorflow as tf

from moco_tf.data import image_ops
from moco_tf.data.random_key import random_key

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2023, 0.1994, 0.2010)}


class PhotometricOp(Protocol):
    """Interface of an op on colors or sharpness: a callable with a `num_draws`.

    It may use TensorFlow's ops only, no randomness but `u`, and static shapes: it runs in tf.data
    on the host, image by image, or in batches on a GPU or TPU, compiled by XLA in both places.
    Image i of the result depends on image i and row i of `u` only.

    Example, an op that inverts colors:

        @dataclasses.dataclass(frozen=True)
        class Invert:
            p: float
            num_draws: ClassVar[int] = 1

            def __call__(self, x, u):
                return apply_to(u[:, 0] < self.p, lambda: 1 - x, x)

    Attributes:
        num_draws: how many uniform numbers the op needs for one image; a constant.
    """

    num_draws: int

    def __call__(self, x: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
        """Changes the images of a batch, each by its own draws.

        Args:
            x: float32 Nx3xSxS in [0, 1]: planes, channel before row and column; N is 1 on the
                host. `moco_tf.data.image_ops` has functions on this layout.
            u: float32 N x num_draws, uniform in [0, 1): this op's part of the draws.

        Returns:
            float32 Nx3xSxS in [0, 1].
        """


class GeometryOp(Protocol):
    """Interface of the crop of a recipe: a callable with a `num_draws`, on the host only.

    Attributes:
        num_draws: how many uniform numbers it needs for one image; a constant.
    """

    num_draws: int

    def __call__(self, image: tf.Tensor, u: tf.Tensor, size: int) -> tf.Tensor:
        """Makes a square view of one image.

        Args:
            image: uint8 HxWx3, of any size.
            u: float32, num_draws, uniform in [0, 1).
            size: side of the view, px.

        Returns:
            uint8 size x size x 3, of static shape.
        """


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Crop of a random share of the area and ratio, and horizontal flip with probability .5."""

    scale: tuple[float, float]
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    num_draws: ClassVar[int] = 23

    def __call__(self, image, u, size):
        height, width, _ = tf.unstack(tf.shape(image))
        u_box, u_flip = tf.split(u, [22, 1])
        box = image_ops.random_crop_box(u_box, height, width, self.scale, self.ratio)
        crop = image_ops.crop_and_resize(image, box, size)
        crop = tf.cond(tf.squeeze(u_flip) < 0.5, lambda: tf.reverse(crop, [1]), lambda: crop)
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
        return apply_to(u[:, 0] < self.p, lambda: image_ops.color_jitter(x, factors, order), x)


@dataclasses.dataclass(frozen=True)
class Grayscale:
    """Grayscale, with probability p."""

    p: float
    num_draws: ClassVar[int] = 1

    def __call__(self, x, u):
        return apply_to(u[:, 0] < self.p, lambda: image_ops.grayscale(x), x)


@dataclasses.dataclass(frozen=True)
class GaussianBlur:
    """Gaussian blur of a sigma drawn uniformly from a range in px, with probability p."""

    sigma: tuple[float, float]
    p: float
    num_draws: ClassVar[int] = 2

    def __call__(self, x, u):
        sigma = self.sigma[0] + u[:, 1] * (self.sigma[1] - self.sigma[0])
        radius = math.ceil(3 * self.sigma[1])
        return apply_to(u[:, 0] < self.p, lambda: image_ops.gaussian_blur(x, sigma, radius), x)


@dataclasses.dataclass(frozen=True)
class Solarize:
    """Inverts the values of at least a half, 128 of 255, with probability p. Source: BYOL."""

    p: float
    num_draws: ClassVar[int] = 1

    def __call__(self, x, u):
        return apply_to(u[:, 0] < self.p, lambda: tf.where(x < 128 / 255, x, 1 - x), x)


def apply_to(chosen: tf.Tensor, op: Callable[[], tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Applies an op to some images of a batch and leaves the others as they are.

    Args:
        chosen: bool N, the images to change.
        op: function without arguments that returns all N changed images.
        x: float32 Nx3xSxS, the unchanged images.

    Returns:
        float32 Nx3xSxS.
    """
    if x.shape[0] == 1:  # one image: skip the work
        return tf.ensure_shape(tf.cond(chosen[0], op, lambda: x), x.shape)
    return tf.where(tf.reshape(chosen, [-1, 1, 1, 1]), op(), x)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A crop and ordered photometric ops that make one random view of an image.

    Attributes:
        crop: `GeometryOp`, from an image of any size to a square view.
        photometric_ops: each a `PhotometricOp`, applied in order.
        mean: mean of each channel, in [0, 1], for the normalization at the end.
        std: standard deviation of each channel, in [0, 1], for the normalization.

    Example:
        >>> weak = Recipe(RandomResizedCrop((0.2, 1.0)), (Grayscale(p=0.2),), **IMAGENET)
        >>> weak.num_draws
        24
    """

    crop: GeometryOp
    photometric_ops: tuple[PhotometricOp, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def num_draws(self) -> int:
        """Length of the vector of uniform numbers that makes one view."""
        return self.crop.num_draws + sum(op.num_draws for op in self.photometric_ops)

    def draw(self, seed, slot, view) -> tf.Tensor:
        """Uniform numbers in [0, 1) for one view: float32, num_draws.

        Args:
            seed: seed of the run, int.
            slot: int64, step * global batch + row: the number of the sample in the whole run.
            view: 0 (query) or 1 (key).
        """
        key = random_key("augmentation", seed, 2 * tf.cast(slot, tf.int64) + view)
        return tf.random.stateless_uniform([self.num_draws], key, alg="philox")

    def geometry(self, image, u, size) -> tf.Tensor:
        """Crops, resizes and flips uint8 HxWx3 to uint8 size x size x 3. On the host."""
        return self.crop(image, u[: self.crop.num_draws], size)

    def photometric(self, images, u) -> tf.Tensor:
        """Applies color and blur to a batch and normalizes it. On host or device.

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

    def normalize(self, x) -> tf.Tensor:
        """Float images in [0, 1], NxHxWx3, to zero mean and unit variance per channel."""
        return image_ops.normalize(x, self.mean, self.std)
