"""Vision transformers (ViT) of MoCo v3: class token, fixed positions, frozen patch projection.

Layers have the names of the public code (and of timm's ViT), such as `blocks.0.attn.qkv`.

Source: arXiv:2104.02057, sections 4 and 5 and table 1; vits.py of facebookresearch/moco-v3.
"""

import functools
import math

import keras
from keras import layers

from moco_tf.backbones.precision import precision
from moco_tf.backbones.vit_layers import GELU, ClassToken, SelfAttention

EPSILON = 1e-6  # of the layer normalizations
PATCH_PX = 16
TOKENS = "tokens"  # name of the layer of the class token


@keras.saving.register_keras_serializable("moco_tf")
class VisionTransformer(keras.Model):
    """A ViT without its classifier: NxHxWx3 images to NxC features, those of the class token.

    H and W are free multiples of `patch_px`, because positions are computed, not learned.

    Args:
        width: channels of a token, C; a multiple of 4 and of `num_heads`.
        depth: blocks of attention and MLP.
        num_heads: attention heads.
        patch_px: side of a patch, in px.
        mlp_ratio: width of the MLPs divided by `width`.
        frozen_patches: keep the projection of patches random, which makes training stable
            (section 4.2).
        channels: channels of the images.
        name: name of the model.
        dtype: precision that the layers compute in, a Keras dtype policy; None for Keras' global.

    Raises:
        ValueError: for a width that cannot be divided.

    Example:

        backbone = vit.vit_small()
        tiny = vit.vit_small(width=96, depth=4, num_heads=4, patch_px=4)  # for 32 px
    """

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        *,
        patch_px: int = PATCH_PX,
        mlp_ratio: int = 4,
        frozen_patches: bool = True,
        channels: int = 3,
        name: str = "vit",
        dtype=None,
    ):
        if width % 4 or width % num_heads:
            raise ValueError(
                "`width` must be a multiple of 4 and of `num_heads`. Received: "
                f"width={width}, num_heads={num_heads}."
            )
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        with precision(policy):
            images = keras.Input((None, None, channels), name="images")
            patches = layers.Conv2D(
                width,
                patch_px,
                strides=patch_px,
                kernel_initializer=_xavier(channels * patch_px**2, width),
                trainable=not frozen_patches,
                name="patch_embed.proj",
            )(images)
            x = ClassToken(name=TOKENS)(patches)  # Nx(1+L)xC
            for i in range(depth):
                x = _block(x, num_heads, mlp_ratio, name=f"blocks.{i}")
            x = _norm(x, "norm")
            super().__init__(images, x[:, 0], name=name)
        self.width = width
        self.depth = depth
        self.num_heads = num_heads
        self.patch_px = patch_px
        self.mlp_ratio = mlp_ratio
        self.frozen_patches = frozen_patches
        self.channels = channels
        self.dtype_policy = policy

    def unfrozen(self) -> "VisionTransformer":
        """A copy with the same weights that trains its patch projection, too, for fine-tuning."""
        copy = VisionTransformer.from_config(self.get_config() | {"frozen_patches": False})
        for layer in copy.layers:
            layer.set_weights(self.get_layer(layer.name).get_weights())
        return copy

    def get_config(self):
        return {
            "width": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "patch_px": self.patch_px,
            "mlp_ratio": self.mlp_ratio,
            "frozen_patches": self.frozen_patches,
            "channels": self.channels,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def _block(x, num_heads, mlp_ratio, name):
    """Attention and an MLP, each on normalized tokens and beside a shortcut."""
    width = x.shape[-1]
    y = _norm(x, f"{name}.norm1")
    # Queries, keys and values start as three layers of their own.
    y = layers.Dense(3 * width, kernel_initializer=_xavier(width, width), name=f"{name}.attn.qkv")(
        y
    )
    y = SelfAttention(num_heads, name=f"{name}.attn")(y)
    y = layers.Dense(width, name=f"{name}.attn.proj")(y)
    x = layers.Add(name=f"{name}.add1")([x, y])
    y = _norm(x, f"{name}.norm2")
    y = layers.Dense(mlp_ratio * width, name=f"{name}.mlp.fc1")(y)
    y = GELU(name=f"{name}.mlp.act")(y)
    y = layers.Dense(width, name=f"{name}.mlp.fc2")(y)
    return layers.Add(name=f"{name}.add2")([x, y])


def _norm(x, name):
    return layers.LayerNormalization(epsilon=EPSILON, name=name)(x)


def _xavier(inputs, outputs):
    """Xavier's uniform distribution for a layer of these sizes, which its kernel may not show."""
    limit = math.sqrt(6 / (inputs + outputs))
    return keras.initializers.RandomUniform(-limit, limit)


def require_vit(backbone: keras.Model) -> VisionTransformer:
    """The given backbone, if it is a `VisionTransformer`.

    Raises:
        ValueError: for any other model.
    """
    if not isinstance(backbone, VisionTransformer):
        raise ValueError(
            f"A ViT is needed, received {backbone.name}: the backbone must be one of "
            "moco_tf.backbones.vit."
        )
    return backbone


vit_small = functools.partial(
    VisionTransformer, width=384, depth=12, num_heads=12, name="vit_small"
)
vit_base = functools.partial(VisionTransformer, width=768, depth=12, num_heads=12, name="vit_base")
ADDRESSES = ("vit:vit_small", "vit:vit_base")
