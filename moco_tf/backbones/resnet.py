"""ResNets, equal to torchvision's in architecture, initialisation and names.

Layers carry torchvision's names (`layer1.0.conv1`), so a reader of either code
finds the way. Stride-1 convolutions pad with "same", the others with an explicit
`ZeroPadding2D`: the same numbers as torch, and fast on CPU.

Source: torchvision/models/resnet.py; widths and ResNeXt of MoCo v1, table 1;
the CIFAR stem of MoCo's CIFAR-10 demo.
"""

import functools

import keras
from keras import layers

from moco_tf.backbones.batch_norm import BatchNorm

# torch's kaiming_normal_(mode="fan_out"), torchvision's choice for convolutions.
KAIMING_FAN_OUT = functools.partial(
    keras.initializers.VarianceScaling, 2.0, "fan_out", "untruncated_normal"
)
# U(-1/sqrt(fan_in), 1/sqrt(fan_in)), torch's default for convolutions and linear layers.
TORCH_DEFAULT = functools.partial(keras.initializers.VarianceScaling, 1 / 3, "fan_in", "uniform")


def resnet(
    block,
    depths,
    *,
    width=64,
    groups=1,
    group_width=64,
    stem="imagenet",
    channels=3,
    last_dilation=1,
    bn_group_size=None,
    synchronized_bn=False,
    name="resnet",
):
    """A ResNet without its classifier: images to globally averaged features.

    Args:
        block: `basic_block` or `bottleneck_block`.
        depths: blocks in each of the four stages.
        width: channels of the first stage (64; 128 for x2, 256 for x4).
        groups: groups of the 3x3 convolutions in bottlenecks (ResNeXt).
        group_width: channels per group in the first stage (ResNeXt 32x8d: 8).
        stem: "imagenet" (7x7 stride 2, max-pool) or "cifar" (3x3 stride 1).
        channels: channels of the images.
        last_dilation: of the 3x3 convolutions of the last stage; above 1 the stage has stride 1,
            and the feature maps are twice as large (v1, section 4.2, semantic segmentation).
        bn_group_size, synchronized_bn: see `BatchNorm`.
        name: name of the model.

    Returns:
        A `keras.Model` from NxHxWxchannels float images, H and W free, to
        NxC features (C = 8 * width, times 4 for bottlenecks).
    """
    if stem not in ("imagenet", "cifar"):
        raise ValueError(f'`stem` must be "imagenet" or "cifar". Received: stem={stem!r}')
    norm = functools.partial(BatchNorm, group_size=bn_group_size, synchronized=synchronized_bn)
    images = keras.Input((None, None, channels), name="images")
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
    for stage, depth in enumerate(depths):
        dilation = last_dilation if stage == 3 else 1
        for i in range(depth):
            x = block(
                x,
                width * 2**stage,
                stride=2 if stage > 0 and i == 0 and dilation == 1 else 1,
                dilation=dilation,
                groups=groups,
                group_width=group_width,
                norm=norm,
                name=f"layer{stage + 1}.{i}",
            )
    features = layers.GlobalAveragePooling2D(name="avgpool")(x)
    return keras.Model(images, features, name=name)


def basic_block(x, width, *, stride, dilation, groups, group_width, norm, name):
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


def bottleneck_block(x, width, *, stride, dilation, groups, group_width, norm, name):
    """1x1, 3x3 (which has the stride) and 1x1 convolutions, the last 4 * width wide."""
    shortcut = _shortcut(x, 4 * width, stride, norm, name)
    inner = width if groups == 1 else width * group_width // 64 * groups
    x = _conv(x, inner, 1, name=f"{name}.conv1")
    x = norm(name=f"{name}.bn1")(x)
    x = layers.ReLU(name=f"{name}.relu1")(x)
    options = {"stride": stride, "dilation": dilation, "groups": groups}
    x = _conv(x, inner, 3, **options, name=f"{name}.conv2")
    x = norm(name=f"{name}.bn2")(x)
    x = layers.ReLU(name=f"{name}.relu2")(x)
    x = _conv(x, 4 * width, 1, name=f"{name}.conv3")
    x = norm(name=f"{name}.bn3")(x)
    x = layers.Add(name=f"{name}.add")([x, shortcut])
    return layers.ReLU(name=f"{name}.relu3")(x)


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


resnet18 = functools.partial(resnet, basic_block, (2, 2, 2, 2), name="resnet18")
resnet34 = functools.partial(resnet, basic_block, (3, 4, 6, 3), name="resnet34")
resnet50 = functools.partial(resnet, bottleneck_block, (3, 4, 6, 3), name="resnet50")
resnet101 = functools.partial(resnet, bottleneck_block, (3, 4, 23, 3), name="resnet101")
resnet152 = functools.partial(resnet, bottleneck_block, (3, 8, 36, 3), name="resnet152")
resnet50x2 = functools.partial(resnet50, width=128, name="resnet50x2")
resnet50x4 = functools.partial(resnet50, width=256, name="resnet50x4")
resnext50 = functools.partial(resnet50, groups=32, group_width=8, name="resnext50")

ADDRESSES = tuple(
    f"resnet:{name}"
    for name in (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        *("resnet50x2", "resnet50x4", "resnext50"),
    )
)
