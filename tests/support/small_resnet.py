"""Backbones of few residual blocks: all that tests of runs, files and commands need."""

from moco_tf.backbones.resnet import ResNet


def two_blocks(width=4, stem="cifar", bn_group_size=None, zero_init_residual=False):
    """A ResNet of two stages of one basic block each."""
    options = {"bn_group_size": bn_group_size, "zero_init_residual": zero_init_residual}
    return ResNet("basic", (1, 1), width=width, stem=stem, **options)


def four_stages(width=8, stem="imagenet"):
    """A ResNet of four stages of one basic block each, as detectors and segmenters need it."""
    return ResNet("basic", (1, 1, 1, 1), width=width, stem=stem)
