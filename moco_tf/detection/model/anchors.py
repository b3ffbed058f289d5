"""Anchors: boxes of a few sizes and aspect ratios around each cell of a feature map.

Source: detectron2/modeling/anchor_generator.py, with its default offset 0.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

SIZES_PX = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)  # height / width


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """Anchors around the origin, size by size.

    Args:
        sizes: square roots of the anchors' areas, px.
        ratios: ratios of height to width.

    Returns:
        float32 Ax4: x1, y1, x2, y2.

    Example:
        >>> cell_anchors([32], ratios=[1.0]).tolist()
        [[-16.0, -16.0, 16.0, 16.0]]
    """
    size, ratio = (x.ravel() for x in np.meshgrid(sizes, ratios, indexing="ij"))
    half = np.stack([size / np.sqrt(ratio), size * np.sqrt(ratio)], axis=1) / 2
    return np.concatenate([-half, half], axis=1).astype(np.float32)


def grid_anchors(cells: np.ndarray, stride: int, height: int, width: int) -> tf.Tensor:
    """Anchors of a whole map, row by row. Those of cell (y, x) lie around (x, y) * stride.

    Args:
        cells: float32 Ax4, returned by `cell_anchors`.
        stride: px between cells.
        height: height of the map, cells; may be a tensor.
        width: width of the map, cells; may be a tensor.

    Returns:
        float32 (height * width * A)x4.
    """
    x, y = tf.meshgrid(tf.range(width), tf.range(height))
    shift = tf.cast(tf.stack([x, y, x, y], axis=-1) * stride, tf.float32)  # hxwx4
    return tf.reshape(shift[:, :, None] + cells, [-1, 4])
