"""Segmentation networks FCN and DeepLabV3+: normalized images to logits of the same size.

The FCN keeps the whole backbone; the last stage has stride 1 and dilation 2. Source: MoCo v1,
appendix (two 3x3 convolutions of 256 channels and dilation 6, BN and ReLU, one 1x1 convolution).
"""

import math

import keras
import tensorflow as tf
from keras import layers

from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.backbones.resnet import ResNet

CHANNELS, DILATION = 256, 6


def feature_maps(backbone: keras.Model) -> keras.KerasTensor:
    """Output of a backbone's last stage before average pooling: NxhxwxC."""
    return backbone.get_layer("avgpool").input


def fcn(backbone: ResNet, num_classes: int) -> keras.Model:
    """The paper's FCN.

    Args:
        backbone: pre-trained ResNet.
        num_classes: number of classes K.

    Returns:
        `keras.Model` from NxHxWx3 images, H and W free, to float32 logits NxHxWxK.
    """
    x = feature_maps(backbone)
    for i in (1, 2):
        x = layers.Conv2D(
            CHANNELS,
            3,
            padding="same",
            dilation_rate=DILATION,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(0.0, 0.01),
            name=f"head.conv{i}",
        )(x)
        x = BatchNorm(synchronized=True, name=f"head.bn{i}")(x)
        x = layers.ReLU(name=f"head.relu{i}")(x)
    initializer = keras.initializers.RandomNormal(0.0, 0.01)
    x = layers.Conv2D(num_classes, 1, kernel_initializer=initializer, name="head.classes")(x)
    stride = _stride(backbone)
    x = Upsample(stride, name="logits", dtype="float32")([x, backbone.input])
    return keras.Model(backbone.input, x, name="fcn")


def _stride(backbone):
    """Stride of the last maps: image pixels between neighboring cells."""
    path = (layer for layer in backbone.layers if "downsample" not in layer.name)
    return math.prod(getattr(layer, "strides", (1, 1))[0] for layer in path)


@keras.saving.register_keras_serializable("moco_tf")
class Upsample(layers.Layer):
    """Bilinear resize of maps, Nxhxwxc, to the size of images, NxHxWx3.

    Cell i of the maps is at pixel i * stride, as with PyTorch's padding. It does not depend on the
    size, so training crops and whole images are aligned in the same way.

    Args:
        stride: image pixels between cells.
    """

    def __init__(self, stride, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride

    def call(self, inputs):
        maps, images = inputs
        # With one more cell, the corners of the maps are at pixels 0 and h * stride of the images.
        maps = tf.pad(maps, [[0, 0], [0, 1], [0, 1], [0, 0]], "SYMMETRIC")
        size = (tf.shape(maps)[1:3] - 1) * self.stride + 1
        large = tf.compat.v1.image.resize_bilinear(maps, size, align_corners=True)
        height, width = tf.unstack(tf.shape(images)[1:3])
        large = large[:, :height, :width]
        return tf.ensure_shape(large, [None, *images.shape[1:3], maps.shape[-1]])

    def compute_output_shape(self, input_shape):
        maps, images = input_shape
        return (*images[:3], maps[-1])

    def get_config(self):
        return super().get_config() | {"stride": self.stride}


def deeplabv3plus(backbone: ResNet, num_classes: int) -> keras.Model:
    """DeepLabV3+ of keras-cv, for images whose sides are multiples of 32 px.

    The backbone must have no dilation and ImageNet's stem, so that its maps are 1/4 to 1/32 of the
    image. BN in keras-cv's layers is not synchronized over replicas. keras-cv is frozen upstream
    and gets no fixes.

    Args, Returns: same as in `fcn`.

    Raises:
        ValueError: for a backbone with another stem.
    """
    if backbone.get_layer("conv1").strides != (2, 2):
        raise ValueError(
            "head=deeplabv3plus needs a backbone with ImageNet's stem, whose last maps are 1/32 of "
            "the image. Received: a backbone with the cifar stem. Use head=fcn."
        )
    from keras_cv.models import DeepLabV3Plus

    levels = {"P2": "layer1", "P3": "layer2", "P4": "layer3", "P5": "layer4"}
    names = [layer.name for layer in backbone.layers]
    backbone.pyramid_level_inputs = {
        level: [n for n in names if n.startswith(stage)][-1] for level, stage in levels.items()
    }
    network = DeepLabV3Plus(num_classes=num_classes, backbone=backbone)
    network.segmentation_head.layers[-1].activation = keras.activations.linear  # gives logits
    # A plain model, because a saved DeepLabV3Plus cannot be loaded with a backbone from outside
    # keras-cv.
    return keras.Model(network.input, network.output, name="deeplabv3plus")


# Head: builder, dilation of the backbone's last stage, and the number that divides image sizes.
NETWORKS = {"fcn": (fcn, 2, 1), "deeplabv3plus": (deeplabv3plus, 1, 32)}
