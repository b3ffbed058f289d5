"""The mask head: network, targets and loss of instance masks within a region.

Source: arXiv:1703.06870; detectron2/modeling/roi_heads/mask_head.py.
"""

import keras
import tensorflow as tf
from keras import layers

from moco_tf import distribute
from moco_tf.backbones.resnet_blocks import KAIMING_FAN_OUT
from moco_tf.detection.model.roi_align import roi_align

CHANNELS = 256


def mask_head(
    shape: tuple[int, int, int], num_classes: int, convs: int = 4, width_divisor: int = 1
) -> keras.Model:
    """Builds the network from regions to masks of twice their side.

    Args:
        shape: shape of a region, SxSxC.
        num_classes: K.
        convs: 3x3 convolutions before the layer that doubles the side.
        width_divisor: divides the width of the convolutions.

    Returns:
        A `keras.Model` from MxSxSxC to float32 logits Mx2Sx2SxK.
    """
    channels = CHANNELS // width_divisor
    regions = x = keras.Input(shape, name="regions")
    options = {"activation": "relu", "kernel_initializer": KAIMING_FAN_OUT()}
    for i in range(1, convs + 1):
        x = layers.Conv2D(channels, 3, padding="same", name=f"conv{i}", **options)(x)
    x = layers.Conv2DTranspose(channels, 2, strides=2, name="double", **options)(x)
    initializer = keras.initializers.RandomNormal(0.0, 0.001)
    x = layers.Conv2D(
        num_classes, 1, kernel_initializer=initializer, dtype="float32", name="masks"
    )(x)
    return keras.Model(regions, x, name="mask")


def targets(
    masks: tf.Tensor,
    truth: tf.Tensor,
    boxes: tf.Tensor,
    index: tf.Tensor,
    size: int,
    static_shapes: bool = False,
) -> tf.Tensor:
    """The part of each instance's mask that lies in a region.

    As in detectron2, a cell of a target is the mean of 4 samples or more, at least 0.5.

    Args:
        masks: uint8 NxGxTxT, 0 or 1, each stretched over its instance's box.
        truth: float32 NxGx4, the boxes of the instances.
        boxes: float32 NxBx4, the boxes of the regions.
        index: int32 NxB, the row of the instance that each region is matched to.
        size: S, side of a target.
        static_shapes: see `roi_align`.

    Returns:
        float32 NxBxSxS, 0 or 1.
    """
    n, b = index.shape
    side = masks.shape[2]
    masks = tf.gather(masks, index, batch_dims=1)  # NxBxTxT
    outer = tf.gather(truth, index, batch_dims=1)  # NxBx4, the box that each mask fills
    scale = tf.maximum(outer[..., 2:] - outer[..., :2], 1e-3)  # an empty row has no side
    corners = tf.reshape(boxes, [n, b, 2, 2]) - outer[..., None, :2]
    corners = tf.reshape(corners / scale[..., None, :] * side, [n * b, 1, 4])
    masks = tf.cast(tf.reshape(masks, [n * b, side, side, 1]), tf.float32)
    covered = roi_align(masks, corners, size, 2, static_shapes)
    return tf.cast(tf.reshape(covered, [n, b, size, size]) >= 0.5, tf.float32)


def loss(logits: tf.Tensor, target: tf.Tensor, label: tf.Tensor, positive: tf.Tensor) -> tf.Tensor:
    """Mean binary cross-entropy (nats) over the pixels of all replicas' positives.

    Args:
        logits: float32 NxBxSxSxK.
        target: float32 NxBxSxS, returned by `targets`.
        label: int32 NxB, the class of each region, whose logits count.
        positive: bool NxB, the regions that count.
    """
    logits = of_class(logits, tf.where(positive, label, 0))
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits)
    losses = tf.where(positive, tf.reduce_mean(losses, axis=[2, 3]), 0.0)  # NxB
    number = distribute.mean(tf.reduce_sum(tf.cast(positive, tf.float32)))
    return tf.reduce_sum(losses) / tf.maximum(number, 1.0)


def of_class(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """The logits of each region's class: NxBxSxSxK and NxB to NxBxSxS."""
    chosen = tf.one_hot(label, logits.shape[-1])[:, :, None, None]  # NxBx1x1xK
    return tf.reduce_sum(logits * chosen, axis=-1)
