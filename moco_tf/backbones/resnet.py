"""ResNet and ResNeXt backbones, equal to torchvision's in architecture, initialization and names.

Layers have torchvision's names, such as `layer1.0.conv1`.

Source: torchvision/models/resnet.py; widths and ResNeXt of MoCo v1, table 1;
the CIFAR stem of MoCo's CIFAR-10 demo.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import keras
from keras import layers

from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.backbones.precision import precision
from moco_tf.backbones.resnet_blocks import BLOCKS, apply_stem


class Variant(NamedTuple):
    """An architecture of the family; its fields are arguments of `ResNet`."""

    block: str
    depths: tuple[int, ...]
    width: int = 64
    groups: int = 1
    group_width: int = 64


VARIANTS = {
    "resnet18": Variant("basic", (2, 2, 2, 2)),
    "resnet34": Variant("basic", (3, 4, 6, 3)),
    "resnet50": Variant("bottleneck", (3, 4, 6, 3)),
    "resnet101": Variant("bottleneck", (3, 4, 23, 3)),
    "resnet152": Variant("bottleneck", (3, 8, 36, 3)),
    "resnet50x2": Variant("bottleneck", (3, 4, 6, 3), width=128),
    "resnet50x4": Variant("bottleneck", (3, 4, 6, 3), width=256),
    "resnext50": Variant("bottleneck", (3, 4, 6, 3), groups=32, group_width=8),
}
ADDRESSES = tuple(f"resnet:{name}" for name in VARIANTS)

# Arguments of `ResNet` that change neither the names nor the shapes of its weights.
FREE = ("last_dilation", "bn_group_size", "synchronized_bn", "frozen_layers", "name", "dtype")


@keras.saving.register_keras_serializable("moco_tf")
class ResNet(keras.Model):
    """A ResNet without its classifier: NxHxWx3 images to NxC globally averaged features.

    H and W are free; C is 8 * width, times 4 for bottlenecks.

    Args:
        block: "basic" (ResNet-18 and -34) or "bottleneck".
        depths: blocks in each stage.
        width: channels of the first stage (64; 128 for x2, 256 for x4).
        groups: groups of the 3x3 convolutions in bottlenecks (ResNeXt).
        group_width: channels per group in the first stage (ResNeXt 32x8d: 8).
        stem: "imagenet" (7x7 stride 2, max-pool) or "cifar" (3x3 stride 1).
        channels: channels of the images.
        last_dilation: dilation of the 3x3 convolutions of the last stage; above 1 the stage has
            stride 1, and its feature maps are twice as large (v1, section 4.2, segmentation).
        bn_group_size: rows that share BN statistics; see `BatchNorm`.
        synchronized_bn: whether BN statistics are those of all replicas; see `BatchNorm`.
        zero_init_residual: whether the scale of each block's last BN starts at 0, so that the
            blocks start as identities (torchvision's option of this name).
        frozen_layers: names of layers that are not trained.
        name: name of the model.
        dtype: precision that the layers compute in, a Keras dtype policy; None for Keras' global.

    Example:

        backbone = resnet.resnet50(stem="cifar")
        dense = backbone.rebuild(last_dilation=2, synchronized_bn=True)
    """

    def __init__(
        self,
        block: str,
        depths: Sequence[int],
        *,
        width: int = 64,
        groups: int = 1,
        group_width: int = 64,
        stem: str = "imagenet",
        channels: int = 3,
        last_dilation: int = 1,
        bn_group_size: int | None = None,
        synchronized_bn: bool = False,
        zero_init_residual: bool = False,
        frozen_layers: Sequence[str] = (),
        name: str = "resnet",
        dtype=None,
    ):
        if block not in BLOCKS:
            raise ValueError(f'`block` must be "basic" or "bottleneck". Received: block={block!r}')
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f'`stem` must be "imagenet" or "cifar". Received: stem={stem!r}')
        norm = functools.partial(BatchNorm, group_size=bn_group_size, synchronized=synchronized_bn)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        with precision(policy):
            images = keras.Input((None, None, channels), name="images")
            x = apply_stem(images, stem, width, norm)
            for stage, depth in enumerate(depths):
                dilation = last_dilation if stage == 3 else 1
                for i in range(depth):
                    x = BLOCKS[block](
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
            super().__init__(images, features, name=name)
        self.block = block
        self.depths = tuple(depths)
        self.width = width
        self.groups = groups
        self.group_width = group_width
        self.stem = stem
        self.channels = channels
        self.last_dilation = last_dilation
        self.bn_group_size = bn_group_size
        self.synchronized_bn = synchronized_bn
        self.zero_init_residual = zero_init_residual
        self.dtype_policy = policy
        if zero_init_residual:
            last = "bn2" if block == "basic" else "bn3"
            for layer in self.layers:
                if layer.name.startswith("layer") and layer.name.endswith(f".{last}"):
                    layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
        for layer in frozen_layers:
            self.get_layer(layer).trainable = False

    def rebuild(self, new_weights: bool = False, **changes) -> "ResNet":
        """A copy built with other settings, with the same weights.

        Args:
            new_weights: give the copy new random weights instead.
            **changes: arguments of the class that leave the weights' shapes as they are:
                last_dilation, bn_group_size, synchronized_bn, frozen_layers, name, dtype. Setting
                synchronized_bn leaves the BN groups out.

        Raises:
            ValueError: for another argument.

        Example:

            dense = backbone.rebuild(last_dilation=2, synchronized_bn=True)
        """
        fixed = [name for name in changes if name not in FREE]
        if fixed:
            raise ValueError(
                f"`rebuild` keeps the weights and can change {', '.join(FREE)}. Received: "
                f"{', '.join(fixed)}."
            )
        if changes.get("synchronized_bn"):
            changes.setdefault("bn_group_size", None)
        copy = ResNet.from_config(self.get_config() | changes)
        if not new_weights:
            for layer in copy.layers:
                layer.set_weights(self.get_layer(layer.name).get_weights())
        return copy

    def get_config(self):
        return {
            "block": self.block,
            "depths": self.depths,
            "width": self.width,
            "groups": self.groups,
            "group_width": self.group_width,
            "stem": self.stem,
            "channels": self.channels,
            "last_dilation": self.last_dilation,
            "bn_group_size": self.bn_group_size,
            "synchronized_bn": self.synchronized_bn,
            "zero_init_residual": self.zero_init_residual,
            "frozen_layers": [
                layer.name for layer in self.layers if layer.weights and not layer.trainable
            ],
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def make(variant: str, **options) -> ResNet:
    """The untrained `ResNet` of a name in `VARIANTS`.

    Args:
        variant: such as "resnet50".
        **options: arguments of `ResNet`, also instead of the variant's own.

    Example:

        backbone = resnet.make("resnet50", stem="cifar", bn_group_size=32)
    """
    settings = VARIANTS[variant]._asdict() | {"name": variant} | options
    return ResNet(**settings)


resnet18 = functools.partial(make, "resnet18")
resnet34 = functools.partial(make, "resnet34")
resnet50 = functools.partial(make, "resnet50")
resnet101 = functools.partial(make, "resnet101")
resnet152 = functools.partial(make, "resnet152")
resnet50x2 = functools.partial(make, "resnet50x2")
resnet50x4 = functools.partial(make, "resnet50x4")
resnext50 = functools.partial(make, "resnext50")


def require_resnet(backbone: keras.Model) -> ResNet:
    """The given backbone, if it is a `ResNet`.

    Raises:
        ValueError: for any other model.
    """
    if not isinstance(backbone, ResNet):
        raise ValueError(
            f"A ResNet is needed, received {backbone.name}: the backbone must be one of "
            "moco_tf.backbones.resnet."
        )
    return backbone
