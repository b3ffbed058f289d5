"""The backbone of an encoder, for tasks that need maps of features."""

import keras

from moco_tf import assembly
from moco_tf.backbones.heads import backbone_of
from moco_tf.interop import weights


def dense_backbone(encoder, random_init=False, seed=0, last_dilation=2):
    """The backbone of an encoder for maps of features, with BN synchronised over replicas.

    Args:
        encoder: `keras.Model` of our ResNets.
        random_init: new weights instead of the encoder's.
        seed: of the new weights.
        last_dilation: of the last stage, which then has stride 1; 1 keeps its stride.

    Returns:
        A `keras.Model` from images to features, as `resnet`.
    """
    arrays = weights.arrays_of(backbone_of(encoder))
    keras.utils.set_random_seed(seed)
    model, _ = weights.describe(arrays)
    backbone = assembly.make_backbone(model, last_dilation=last_dilation, synchronized_bn=True)
    if not random_init:
        weights.set_arrays(backbone, arrays)
    return backbone
