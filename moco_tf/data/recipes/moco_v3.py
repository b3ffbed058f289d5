"""The augmentations of MoCo v3: one recipe for each view, with crops by backbone.

Source: main_moco.py of facebookresearch/moco-v3, augmentation1 and augmentation2; its --crop-min is
.2 for ResNets (CONFIG.md) and .08, the default, for vision transformers. The flip commutes with
colors and blur and is part of the crop here.
"""

from moco_tf.data.recipes.recipe import (
    IMAGENET,
    ColorJitter,
    GaussianBlur,
    Grayscale,
    RandomResizedCrop,
    Recipe,
    Solarize,
)

COLORS = (ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), Grayscale(p=0.2))
FIRST = (*COLORS, GaussianBlur(sigma=(0.1, 2.0), p=1.0))
SECOND = (*COLORS, GaussianBlur(sigma=(0.1, 2.0), p=0.1), Solarize(p=0.2))

resnet_q = Recipe(RandomResizedCrop(scale=(0.2, 1.0)), FIRST, **IMAGENET)
resnet_k = Recipe(RandomResizedCrop(scale=(0.2, 1.0)), SECOND, **IMAGENET)
vit_q = Recipe(RandomResizedCrop(scale=(0.08, 1.0)), FIRST, **IMAGENET)
vit_k = Recipe(RandomResizedCrop(scale=(0.08, 1.0)), SECOND, **IMAGENET)

ADDRESSES = ("moco_v3:resnet_q", "moco_v3:resnet_k", "moco_v3:vit_q", "moco_v3:vit_k")
