"""The crops of supervised training and evaluation.

Source: main_lincls.py.
"""

import dataclasses

from moco_tf import image_ops
from moco_tf.recipes.recipe import RandomResizedCrop


def training_crop(recipe):
    """Random crop of 8 % to all of the area, and flip, with the normalisation of `recipe`."""
    crop = RandomResizedCrop(scale=(0.08, 1.0))
    return dataclasses.replace(recipe, crop=crop, photometric_ops=())


def center_crop(image, resize_px, size_px):
    """Short side to `resize_px`, then the central `size_px` (256 and 224 px in the reference).

    Args:
        image: uint8 HxWx3.
        resize_px, size_px: px.

    Returns:
        uint8 SxSx3.
    """
    return image_ops.center_crop(image_ops.resize_short_side(image, resize_px), size_px)
