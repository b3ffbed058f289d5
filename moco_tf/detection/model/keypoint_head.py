"""The keypoint head: one heat map per keypoint over a region's box, targets and loss.

Source: arXiv:1703.06870, section 5; detectron2/modeling/roi_heads/keypoint_head.py and
structures/keypoints.py.
"""

import keras
import tensorflow as tf
from keras import layers

from moco_tf import distribute
from moco_tf.backbones.resnet_blocks import KAIMING_FAN_OUT

CONVS, CHANNELS = 8, 512


def keypoint_head(
    shape: tuple[int, int, int],
    num_keypoints: int,
    width_divisor: int = 1,
    name: str = "keypoint",
) -> keras.Model:
    """Builds the network from regions to heat maps of four times their side.

    Args:
        shape: shape of a region, SxSxC.
        num_keypoints: K.
        width_divisor: divides the width of the convolutions.
        name: name of the model.

    Returns:
        A `keras.Model` from MxSxSxC to float32 logits Mx4Sx4SxK.
    """
    regions = x = keras.Input(shape, name="regions")
    for i in range(1, CONVS + 1):
        x = layers.Conv2D(
            CHANNELS // width_divisor,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=KAIMING_FAN_OUT(),
            name=f"conv{i}",
        )(x)
    x = layers.Conv2DTranspose(
        num_keypoints,
        4,
        strides=2,
        padding="same",
        kernel_initializer=KAIMING_FAN_OUT(),
        name="double",
    )(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32", name="heatmaps")(x)
    return keras.Model(regions, x, name=name)


def targets(keypoints: tf.Tensor, boxes: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The cell of the heat map that each keypoint lies in.

    Args:
        keypoints: float32 NxBxKx3: x, y in px, visibility (0: not labeled).
        boxes: float32 NxBx4, the boxes of the regions.
        size: S, side of the heat maps.

    Returns:
        cell: int32 NxBxK, y * S + x.
        is_counted: bool NxBxK, labeled and within the box; the far border is part of it.
    """
    near_corner = boxes[..., None, :2]  # NxBx1x2
    far_corner = boxes[..., None, 2:]
    points = keypoints[..., :2]
    scale = tf.math.divide_no_nan(float(size), far_corner - near_corner)
    cells = tf.floor((points - near_corner) * scale)
    cells = tf.where(points == far_corner, size - 1.0, cells)
    is_inside = tf.reduce_all((cells >= 0) & (cells < size), axis=-1)
    is_counted = is_inside & (keypoints[..., 2] > 0)
    x, y = tf.unstack(tf.cast(tf.where(is_counted[..., None], cells, 0.0), tf.int32), axis=-1)
    return y * size + x, is_counted


def loss(logits: tf.Tensor, cell: tf.Tensor, is_counted: tf.Tensor) -> tf.Tensor:
    """Mean cross-entropy (nats) over cells, of the keypoints of all replicas that count.

    Args:
        logits: float32 NxBxSxSxK.
        cell: int32 NxBxK, returned by `targets`.
        is_counted: bool NxBxK, the keypoints that count.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=cell, logits=_flat(logits))
    number = distribute.mean(tf.reduce_sum(tf.cast(is_counted, tf.float32)))
    return tf.reduce_sum(tf.where(is_counted, losses, 0.0)) / tf.maximum(number, 1.0)


def decode(logits: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Keypoints from heat maps.

    A keypoint is the center of the highest cell, moved by a quarter of a cell towards the higher of
    its neighbors on each axis. detectron2 resizes each heat map to its box (bicubic) and takes the
    highest pixel instead.

    Args:
        logits: float32 NxBxSxSxK.
        boxes: float32 NxBx4.

    Returns:
        float32 NxBxKx3: x, y in px, and the probability of the cell.

    Source: arXiv:1603.06937, section 3.2 (the quarter).
    """
    size = logits.shape[2]
    flat = _flat(logits)  # NxBxKxSS
    best = tf.argmax(flat, axis=-1, output_type=tf.int32)  # NxBxK
    x, y = best % size, best // size

    def slope(position, step):
        """1 if the next neighbor is higher, -1 if the previous one is, 0 at the border."""
        following = tf.gather(flat, tf.minimum(best + step, size * size - 1), batch_dims=3)
        previous = tf.gather(flat, tf.maximum(best - step, 0), batch_dims=3)
        is_inner = (position > 0) & (position < size - 1)
        return tf.where(is_inner, tf.sign(following - previous), 0.0)

    x = tf.cast(x, tf.float32) + 0.5 + 0.25 * slope(x, 1)
    y = tf.cast(y, tf.float32) + 0.5 + 0.25 * slope(y, size)
    near_corner = boxes[..., None, :2]
    far_corner = boxes[..., None, 2:]
    points = near_corner + tf.stack([x, y], axis=-1) / size * (far_corner - near_corner)
    score = tf.reduce_max(tf.nn.softmax(flat), axis=-1, keepdims=True)
    return tf.concat([points, score], axis=-1)


def _flat(logits):
    """NxBxSxSxK to NxBxKx(SS)."""
    n, b, s, _, k = logits.shape
    return tf.transpose(tf.reshape(logits, [n, b, s * s, k]), [0, 1, 3, 2])
