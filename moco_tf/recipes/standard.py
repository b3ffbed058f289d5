"""The crop for evaluation."""

from moco_tf import image_ops


def center_crop(image, resize_px, size_px):
    """Short side to `resize_px`, then the central `size_px`: uint8 HxWx3 to uint8 SxSx3.

    Source: main_lincls.py (256 and 224 px).
    """
    return image_ops.center_crop(image_ops.resize_short_side(image, resize_px), size_px)
