"""Anchors: boxes of a few sizes and shapes around each cell of the maps.

Source: detectron2/modeling/anchor_generator.py, with its default offset 0.
"""

import numpy as np
import tensorflow as tf

SIZES_PX = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)  # height / width


def cell_anchors(sizes, ratios=RATIOS):
    """The anchors around the origin, size by size.

    Args:
        sizes: square roots of the areas, px.
        ratios: of height to width.

    Returns:
        float32 array Ax4.
    """
    size, ratio = (x.ravel() for x in np.meshgrid(sizes, ratios, indexing="ij"))
    half = np.stack([size / np.sqrt(ratio), size * np.sqrt(ratio)], axis=1) / 2
    return np.concatenate([-half, half], axis=1).astype(np.float32)


def grid_anchors(cells, stride, height, width):
    """The anchors of a map, row by row; those of cell (y, x) are around (x, y) * stride.

    Args:
        cells: float32 Ax4, of `cell_anchors`.
        stride: px between cells.
        height, width: of the map, cells; may be tensors.

    Returns:
        float32 (height * width * A)x4.
    """
    x, y = tf.meshgrid(tf.range(width), tf.range(height))
    shift = tf.cast(tf.stack([x, y, x, y], axis=-1) * stride, tf.float32)  # hxwx4
    return tf.reshape(shift[:, :, None] + cells, [-1, 4])
