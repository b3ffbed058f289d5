"""The stem and the residual blocks of a ResNet, layer by layer, with torchvision's names.

Stride-1 convolutions pad with "same", the others with an explicit `ZeroPadding2D`: the same
numbers as torch, and fast on CPU.

Source: torchvision/models/resnet.py.
"""

import functools

import keras
from keras import layers

# torch's kaiming_normal_(mode="fan_out"), torchvision's choice for convolutions.
KAIMING_FAN_OUT = functools.partial(
    keras.initializers.VarianceScaling, 2.0, "fan_out", "untruncated_normal"
)
# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default for convolutions and linear layers.
TORCH_DEFAULT = functools.partial(keras.initializers.VarianceScaling, 1 / 3, "fan_in", "uniform")


def apply_stem(images, stem, width, norm):
    """The first layers: "imagenet" (7x7 stride 2, max-pool) or "cifar" (3x3 stride 1)."""
    if stem == "cifar":
        x = _conv(images, width, 3, name="conv1", initializer=TORCH_DEFAULT)
    else:
        x = _conv(images, width, 7, stride=2, name="conv1")
    x = norm(name="bn1")(x)
    x = layers.ReLU(name="relu")(x)
    if stem == "imagenet":
        # Zeros cannot win the maximum after a ReLU unless all are zero: torch's -inf padding.
        x = layers.ZeroPadding2D(1, name="maxpool.pad")(x)
        x = layers.MaxPooling2D(3, 2, name="maxpool")(x)
    return x


def _basic_block(x, width, *, stride, dilation, groups, group_width, norm, name):
    """Two 3x3 convolutions, of ResNet-18 and -34."""
    del groups, group_width  # ResNeXt is defined on bottlenecks
    shortcut = _shortcut(x, width, stride, norm, name)
    x = _conv(x, width, 3, stride=stride, dilation=dilation, name=f"{name}.conv1")
    x = norm(name=f"{name}.bn1")(x)
    x = layers.ReLU(name=f"{name}.relu1")(x)
    x = _conv(x, width, 3, dilation=dilation, name=f"{name}.conv2")
    x = norm(name=f"{name}.bn2")(x)
    x = layers.Add(name=f"{name}.add")([x, shortcut])
    return layers.ReLU(name=f"{name}.relu2")(x)


def _bottleneck_block(x, width, *, stride, dilation, groups, group_width, norm, name):
    """1x1, 3x3 (which has the stride) and 1x1 convolutions, the last 4 * width wide."""
    shortcut = _shortcut(x, 4 * width, stride, norm, name)
    inner = width if groups == 1 else width * group_width // 64 * groups
    x = _conv(x, inner, 1, name=f"{name}.conv1")
    x = norm(name=f"{name}.bn1")(x)
    x = layers.ReLU(name=f"{name}.relu1")(x)
    x = _conv(x, inner, 3, stride=stride, dilation=dilation, groups=groups, name=f"{name}.conv2")
    x = norm(name=f"{name}.bn2")(x)
    x = layers.ReLU(name=f"{name}.relu2")(x)
    x = _conv(x, 4 * width, 1, name=f"{name}.conv3")
    x = norm(name=f"{name}.bn3")(x)
    x = layers.Add(name=f"{name}.add")([x, shortcut])
    return layers.ReLU(name=f"{name}.relu3")(x)


BLOCKS = {"basic": _basic_block, "bottleneck": _bottleneck_block}


def _shortcut(x, width, stride, norm, name):
    if stride == 1 and x.shape[-1] == width:
        return x
    x = _conv(x, width, 1, stride=stride, name=f"{name}.downsample.0")
    return norm(name=f"{name}.downsample.1")(x)


def _conv(
    x, width, kernel_size, *, stride=1, dilation=1, groups=1, name, initializer=KAIMING_FAN_OUT
):
    if stride > 1 and kernel_size > 1:
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}.pad")(x)
    return layers.Conv2D(
        width,
        kernel_size,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        dilation_rate=dilation,
        groups=groups,
        use_bias=False,
        kernel_initializer=initializer(),
        name=name,
    )(x)
