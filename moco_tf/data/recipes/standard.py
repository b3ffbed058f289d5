"""The augmentation of supervised training: random crop and flip, no colors.

Source: main_lincls.py.
"""

import dataclasses

from moco_tf.data.recipes.recipe import RandomResizedCrop, Recipe


def training_crop(recipe: Recipe) -> Recipe:
    """Random crop of 8 % to 100 % of the area, and flip, with the normalization of `recipe`."""
    crop = RandomResizedCrop(scale=(0.08, 1.0))
    return dataclasses.replace(recipe, crop=crop, photometric_ops=())
