"""Recipes, an op and a source from outside the package, as a user's own module has them."""

import dataclasses
from typing import ClassVar

import tensorflow as tf

from moco_tf.data import sources
from moco_tf.data.recipes.recipe import (
    CIFAR10,
    IMAGENET,
    Grayscale,
    RandomResizedCrop,
    Recipe,
    apply_to,
)
from moco_tf.data.sources import synthetic


@dataclasses.dataclass(frozen=True)
class Solarize:
    """Inverts what is brighter than one half, with probability p."""

    p: float
    num_draws: ClassVar[int] = 1

    def __call__(self, x, u):
        return apply_to(u[:, 0] < self.p, lambda: tf.where(x < 0.5, x, 1 - x), x)


strong = Recipe(
    RandomResizedCrop((0.2, 1.0)),
    (
        Solarize(p=0.5),
        Grayscale(p=0.5),
    ),
    **IMAGENET,
)
weak = Recipe(RandomResizedCrop((0.7, 1.0)), (Solarize(p=0.5),), **CIFAR10)

ADDRESSES = ("own_views:COUNT",)


def open(rest, **_):
    """Opens "own_views:COUNT", so many images of shapes."""
    return sources.from_arrays(*synthetic.shapes(int(rest), seed=3))
