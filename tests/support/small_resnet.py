"""Backbones of few residual blocks: all that tests of runs, files and commands need."""

from moco_tf.backbones.resnet import ResNet


def two_blocks(width=4, stem="cifar", bn_group_size=None):
    """A ResNet of two stages of one basic block each."""
    return ResNet("basic", (1, 1), width=width, stem=stem, bn_group_size=bn_group_size)


def four_stages(width=8, stem="imagenet"):
    """A ResNet of four stages of one basic block each, as detectors and segmenters need it."""
    return ResNet("basic", (1, 1, 1, 1), width=width, stem=stem)
