"""A backbone of two residual blocks: all that tests of runs, files and commands need."""

from moco_tf.backbones.resnet import ResNet


def two_blocks(width=4, stem="cifar", bn_group_size=None):
    """A ResNet of two stages of one basic block each."""
    return ResNet("basic", (1, 1), width=width, stem=stem, bn_group_size=bn_group_size)
