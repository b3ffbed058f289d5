"""Vision transformers in PyTorch files: order of the layers, positions, architecture of weights.

Source: vits.py of facebookresearch/moco-v3, whose names are timm's.
"""

import math
import re

import keras
import numpy as np

from moco_tf.backbones import vit
from moco_tf.backbones.vit import VisionTransformer
from moco_tf.backbones.vit_layers import positions
from moco_tf.pretraining.config import Model

FAMILY = "a ViT of MoCo v3"
POSITIONS = "pos_embed"  # in a file; a `VisionTransformer` computes them
BLOCK = re.compile(r"blocks\.(\d+)\.")


def layers_of(backbone: VisionTransformer) -> list[keras.layers.Layer]:
    """The layers with weights in the order of the public code: class token, patches, blocks."""
    layers = [layer for layer in backbone.layers if layer.variables]
    return sorted(layers, key=lambda layer: layer.name != vit.TOKENS)


def is_vit(arrays: dict[str, np.ndarray]) -> bool:
    """Whether weights are those of a vision transformer, by their names."""
    return "cls_token" in arrays


def with_positions(arrays: dict[str, np.ndarray], image_size_px: int) -> dict[str, np.ndarray]:
    """The weights of a ViT with the positions that a file has, behind the class token.

    Args:
        arrays: weights by the public code's names.
        image_size_px: side of the images whose positions they are.
    """
    if POSITIONS in arrays:
        return arrays
    width, _, _, patch_px = arrays["patch_embed.proj.weight"].shape
    table = _positions(image_size_px // patch_px, width)
    return {"cls_token": arrays["cls_token"], POSITIONS: table, **arrays}


def without_positions(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The weights of a ViT without the positions of a file.

    Args:
        arrays: weights by the public code's names.
        name: name of their origin, for messages.

    Raises:
        ValueError: for other positions than the fixed ones, such as learned ones.
    """
    table = arrays.get(POSITIONS)
    if table is None:
        return arrays
    side = math.isqrt(table.shape[1] - 1) if table.ndim == 3 else 0
    want = _positions(side, arrays["cls_token"].shape[-1])
    if table.shape != want.shape or not np.allclose(table, want, atol=1e-3):
        raise ValueError(
            f"{name} must have the fixed sine-cosine positions of MoCo v3, rows before columns. "
            f"Received: other positions, {POSITIONS} of shape {table.shape}, such as the learned "
            "ones of DeiT and DINO or those of MAE."
        )
    return {key: array for key, array in arrays.items() if key != POSITIONS}


def _positions(side, width):
    """Zeros for the class token, then a square grid's positions: 1 x (1 + side^2) x width."""
    grid = positions(side, side, width).numpy().reshape(1, side * side, width)
    return np.concatenate([np.zeros((1, 1, width), np.float32), grid], axis=1)


def describe(arrays: dict[str, np.ndarray]) -> tuple[Model, int]:
    """Infers the architecture of a ViT from its weights.

    Args:
        arrays: weights by the public code's names.

    Returns:
        `config.Model` whose backbone it is, and the number of features.

    Raises:
        ValueError: for a width that no variant has: the number of heads is not in the weights.
    """
    patches = arrays.get("patch_embed.proj.weight")
    if patches is None or patches.ndim != 4 or patches.shape[1] != 3:
        raise ValueError(
            f"The weights must be of {FAMILY}, for images of 3 channels. Received: "
            f"{', '.join(list(arrays)[:5])} and {len(arrays) - 5} more."
        )
    variants = {name: getattr(vit, name).keywords for name in ("vit_small", "vit_base")}
    width, patch_px = patches.shape[0], patches.shape[3]
    same = [name for name, arguments in variants.items() if arguments["width"] == width]
    if not same:
        raise ValueError(
            f"The backbone must be {' or '.join(vit.ADDRESSES)}, of any depth and patch, because a "
            f"file does not say how many heads there are. Received: {width} channels."
        )
    (name,) = same
    blocks = {match[1] for match in map(BLOCK.match, arrays) if match}
    options = []
    if len(blocks) != variants[name]["depth"]:
        options.append(f"depth={len(blocks)}")
    if patch_px != vit.PATCH_PX:
        options.append(f"patch_px={patch_px}")
    model = Model(backbone=f"vit:{name}", backbone_options=tuple(options))
    return model, width
