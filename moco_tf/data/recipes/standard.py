"""The crops of supervised training.

Source: main_lincls.py.
"""

import dataclasses

from moco_tf.data.recipes.recipe import RandomResizedCrop


def training_crop(recipe):
    """Random crop of 8 % to all of the area, and flip, with the normalisation of `recipe`."""
    crop = RandomResizedCrop(scale=(0.08, 1.0))
    return dataclasses.replace(recipe, crop=crop, photometric_ops=())
