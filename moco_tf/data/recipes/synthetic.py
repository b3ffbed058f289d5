"""The augmentation for the generated cloth of the source "synthetic:fabrics".

MoCo v2's with half its strengths, and without grayscale and blur: 32 px show less than a photo,
and one cloth is told from another by its colors.
"""

from moco_tf.data.recipes.recipe import IMAGENET, ColorJitter, RandomResizedCrop, Recipe

fabrics = Recipe(
    RandomResizedCrop(scale=(0.5, 1.0)),
    (ColorJitter(0.2, 0.2, 0.2, 0.05, p=0.8),),
    **IMAGENET,
)

ADDRESSES = ("synthetic:fabrics",)
