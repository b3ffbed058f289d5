"""The mask head: which part of a region's box the instance covers.

Source: arXiv:1703.06870; detectron2/modeling/roi_heads/mask_head.py.
"""

import keras
import tensorflow as tf
from keras import layers

from moco_tf import distribute
from moco_tf.backbones.resnet import KAIMING_FAN_OUT
from moco_tf.detection.model.roi_align import roi_align

CHANNELS = 256


def mask_head(shape, num_classes, convs=4, width_divisor=1):
    """From regions to masks of twice their side.

    Args:
        shape: of a region, SxSxC.
        num_classes: K.
        convs: 3x3 convolutions before the one that doubles the side.
        width_divisor: divides their width.

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


def targets(masks, truth, boxes, index, size, products=False):
    """The part of each instance's mask that lies in a box.

    Args:
        masks: uint8 NxGxTxT, 0 or 1, each stretched over its instance's box.
        truth: float32 NxGx4, those boxes.
        boxes: float32 NxBx4.
        index: int32 NxB, the instance of each box.
        size: S.
        products: as of `roi_align`.

    Returns:
        float32 NxBxSxS, 0 or 1. As detectron2 has them, from 4 or more samples of a cell.
    """
    n, b = index.shape
    side = masks.shape[2]
    own = tf.gather(masks, index, batch_dims=1)  # NxBxTxT
    within = tf.gather(truth, index, batch_dims=1)
    scale = tf.maximum(within[..., 2:] - within[..., :2], 1e-3)  # an empty slot has no side
    corners = tf.reshape(boxes, [n, b, 2, 2]) - within[..., None, :2]
    corners = tf.reshape(corners / scale[..., None, :] * side, [n * b, 1, 4])
    own = tf.cast(tf.reshape(own, [n * b, side, side, 1]), tf.float32)
    found = roi_align(own, corners, size, 2, products)
    return tf.cast(tf.reshape(found, [n, b, size, size]) >= 0.5, tf.float32)


def loss(logits, target, label, positive):
    """The binary cross-entropy, nats: the mean over the pixels of all replicas' positives.

    Args:
        logits: float32 NxBxSxSxK.
        target: float32 NxBxSxS.
        label: int32 NxB, the class whose logits count.
        positive: bool NxB.
    """
    logits = of_class(logits, tf.where(positive, label, 0))
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits)
    losses = tf.where(positive, tf.reduce_mean(losses, axis=[2, 3]), 0.0)  # NxB
    number = distribute.mean(tf.reduce_sum(tf.cast(positive, tf.float32)))
    return tf.reduce_sum(losses) / tf.maximum(number, 1.0)


def of_class(logits, label):
    """The logits of each region's class: NxBxSxSxK and NxB to NxBxSxS."""
    chosen = tf.one_hot(label, logits.shape[-1])[:, :, None, None]  # NxBx1x1xK
    return tf.reduce_sum(logits * chosen, axis=-1)
