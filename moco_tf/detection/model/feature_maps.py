"""Feature maps of a backbone: the last stage (C4, DC5) or a feature pyramid (FPN).

With frozen BN, the backbone's statistics and affine parameters are constants, detectron2's default
for supervised networks, and the new layers have biases instead of BN. MoCo's supervised controls
train BN as MoCo's networks do; only LVIS' has frozen BN.

Source: MoCo v1, section 4.2; facebookresearch/moco, detection/configs/Base-RCNN-C4-BN.yaml.
"""

import keras
from keras import layers

from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.resnet import ResNet, require_resnet

CHANNELS, DC5_CHANNELS = 256, 512  # channels of the pyramid and of dilated C5


def backbone_for_maps(
    encoder: Encoder,
    frozen_bn: bool = False,
    random_init: bool = False,
    seed: int = 0,
    last_dilation: int = 1,
) -> ResNet:
    """A copy of an encoder's ResNet for feature maps, with BN synchronized over replicas.

    Args:
        encoder: pre-trained encoder.
        frozen_bn: make BN constant.
        random_init: use new weights instead of the encoder's.
        seed: seed of the new weights, and of the layers that are made later.
        last_dilation: dilation of the last stage, whose stride is 1 if it is above 1.

    Raises:
        ValueError: if the backbone is no ResNet with ImageNet's stem.
    """
    backbone = require_resnet(encoder.backbone)
    if backbone.stem != "imagenet":
        raise ValueError(
            "Detection needs a backbone with ImageNet's stem, whose last maps are 1/32 of the "
            "image. Received: a backbone with the cifar stem."
        )
    keras.utils.set_random_seed(seed)
    backbone = backbone.rebuild(
        random_init, last_dilation=last_dilation, synchronized_bn=True, dtype="float32"
    )
    if frozen_bn:
        freeze_bn(backbone)
    return backbone


def c4(backbone: ResNet, frozen_bn: bool = False) -> tuple[keras.Model, keras.Model]:
    """Maps of stage 3, and stage 4 as the head of regions (C4).

    Args:
        backbone: ResNet from `backbone_for_maps` with last_dilation 1.
        frozen_bn: add no BN to the end of the head.

    Returns:
        Two `keras.Model`s: NxHxWx3 images to a list of one map, 1/16; and regions of it,
        Mx14x14xC, to Mx7x7xD. The second has the backbone's weights.

    Source: detectron2/modeling/roi_heads/roi_heads.py (Res5ROIHeads), with the BN that MoCo adds.
    """
    images, maps = backbone.input, _end_of(backbone, 3)
    x = _end_of(backbone, 4)
    if not frozen_bn:
        x = BatchNorm(synchronized=True, name="region.bn")(x)
    return keras.Model(images, [maps], name="features"), keras.Model(maps, x, name="region")


def dc5(backbone: ResNet, frozen_bn: bool = False, channels: int = DC5_CHANNELS) -> keras.Model:
    """Maps of stage 4 with dilation instead of stride, reduced to fewer channels (DC5).

    Args:
        backbone: ResNet from `backbone_for_maps` with last_dilation 2.
        frozen_bn: use a bias instead of BN in the new layer.
        channels: channels of the map.

    Returns:
        `keras.Model` from NxHxWx3 images to a list of one map, 1/16 of their size.

    Source: MoCo v1, appendix A.1; detectron2's own dilated C5 is not reduced.
    """
    x = _conv(_end_of(backbone, 4), channels, 3, "reduce", frozen_bn)
    return keras.Model(backbone.input, [x], name="features")


def fpn(backbone: ResNet, frozen_bn: bool = False, channels: int = CHANNELS) -> keras.Model:
    """The feature pyramid network (FPN), levels P2 to P6.

    Args:
        backbone: ResNet from `backbone_for_maps` with last_dilation 1.
        frozen_bn: use biases instead of BN in the new layers.
        channels: channels of each level.

    Returns:
        `keras.Model` from NxHxWx3 images, H and W multiples of 32, to a list of P2 to P6.

    Source: arXiv:1612.03144; detectron2/modeling/backbone/fpn.py.
    """

    def conv(x, kernel, name):
        return _conv(x, channels, kernel, name, frozen_bn)

    sums = {5: conv(_end_of(backbone, 4), 1, "lateral5")}
    for level in (4, 3, 2):
        above = layers.UpSampling2D(2, name=f"above{level}")(sums[level + 1])
        lateral = conv(_end_of(backbone, level - 1), 1, f"lateral{level}")
        sums[level] = layers.Add(name=f"sum{level}")([lateral, above])
    maps = [conv(sums[level], 3, f"output{level}") for level in (2, 3, 4, 5)]
    maps.append(layers.MaxPooling2D(1, 2, name="output6")(maps[-1]))
    return keras.Model(backbone.input, maps, name="features")


def freeze_bn(model: keras.Model):
    """Makes all BN layers of a model constant."""
    for layer in model.layers:
        if isinstance(layer, BatchNorm):
            layer.trainable = False


def _conv(x, channels, kernel, name, frozen_bn):
    """A new convolution, with BN, or with a bias if BN is frozen."""
    x = layers.Conv2D(
        channels,
        kernel,
        padding="same",
        use_bias=frozen_bn,
        kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
        name=name,
    )(x)
    return x if frozen_bn else BatchNorm(synchronized=True, name=f"{name}.bn")(x)


def last_layer(backbone: ResNet, stage: int) -> keras.layers.Layer:
    """The last layer of a stage of the backbone, 1 to 4."""
    return [layer for layer in backbone.layers if layer.name.startswith(f"layer{stage}.")][-1]


def _end_of(backbone, stage):
    return last_layer(backbone, stage).output
