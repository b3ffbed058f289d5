"""The augmentations of MoCo v1, MoCo v2 and the CIFAR-10 demo.

Source: main_moco.py of the official code (v1 is its default, v2 its --aug-plus), and
its CIFAR-10 demo. The flip commutes with the color ops and is part of the crop here.
"""

from moco_tf.data.recipes.recipe import (
    CIFAR10,
    IMAGENET,
    ColorJitter,
    GaussianBlur,
    Grayscale,
    RandomResizedCrop,
    Recipe,
)

v1 = Recipe(
    RandomResizedCrop(scale=(0.2, 1.0)),
    (
        Grayscale(p=0.2),
        ColorJitter(0.4, 0.4, 0.4, 0.4),
    ),
    **IMAGENET,
)

v2 = Recipe(
    RandomResizedCrop(scale=(0.2, 1.0)),
    (
        ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        Grayscale(p=0.2),
        GaussianBlur(sigma=(0.1, 2.0), p=0.5),
    ),
    **IMAGENET,
)

cifar10 = Recipe(
    RandomResizedCrop(scale=(0.08, 1.0)),
    (
        ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        Grayscale(p=0.2),
    ),
    **CIFAR10,
)

ADDRESSES = ("moco:v1", "moco:v2", "moco:cifar10")
