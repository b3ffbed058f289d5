"""The parts of a detector that have weights, made from an encoder and saved in one file."""

import keras
import tensorflow as tf

from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.detection.model import anchors, box_head, densepose_head, feature_maps
from moco_tf.detection.model.keypoint_head import keypoint_head
from moco_tf.detection.model.mask_head import mask_head
from moco_tf.detection.model.roi_align import pool
from moco_tf.detection.model.rpn import rpn_head

KINDS = ("c4", "dc5", "fpn")
SMALL, LARGE = 7, 14  # sides of the regions that the heads take


def make_network(
    encoder,
    kind,
    num_classes,
    *,
    masks=False,
    num_keypoints=0,
    densepose=False,
    frozen_bn=False,
    random_init=False,
    seed=0,
    narrow=1,
):
    """Faster, Mask or Keypoint R-CNN on the backbone of an encoder.

    Args:
        encoder: `keras.Model` of our ResNets, with ImageNet's stem.
        kind: "c4": maps of stage 3, and stage 4 over each region; "dc5": maps of a dilated stage 4,
            reduced; "fpn": a pyramid. The last two have a box head of two linear layers.
        num_classes: K.
        masks: with a mask head.
        num_keypoints: points of an instance, 0 for no keypoint head.
        densepose: with DensePose's head.
        frozen_bn: see `features`.
        random_init, seed: as of `dense_backbone`; the seed is also that of the heads.
        narrow: divides the widths of the pyramid, of "dc5" and of the heads, for small tasks.

    Returns:
        A `Network`.

    Raises:
        ValueError: for another kind, a backbone with another stem, or keypoints or DensePose with
            "c4".
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}. Received: kind={kind!r}.")
    if kind == "c4" and (num_keypoints or densepose):
        raise ValueError(
            'A keypoint head needs kind="fpn" or "dc5": the regions of "c4" are half as large. '
            "So does DensePose's. "
            f'Received: kind="c4", num_keypoints={num_keypoints}, densepose={densepose}.'
        )
    backbone = feature_maps.backbone_for_maps(
        encoder, frozen_bn, random_init, seed, 2 if kind == "dc5" else 1
    )
    region, convs, side = None, 4, LARGE
    if kind == "c4":
        features, region = feature_maps.c4(backbone, frozen_bn)
        convs, side = 0, SMALL
    elif kind == "dc5":
        features = feature_maps.dc5(backbone, frozen_bn, feature_maps.DC5_CHANNELS // narrow)
    else:
        features = feature_maps.fpn(backbone, frozen_bn, feature_maps.CHANNELS // narrow)
    channels = features.outputs[0].shape[-1]
    width = region.output.shape[-1] if region else channels
    per_cell = len(anchors.RATIOS) * (1 if kind == "fpn" else len(anchors.SIZES_PX))
    mask = keypoint = surface = None
    if masks:
        mask = mask_head((side, side, width), num_classes, convs, narrow)
    if num_keypoints:
        keypoint = keypoint_head((side, side, width), num_keypoints, narrow)
    if densepose:
        surface = keypoint_head((side, side, width), densepose_head.MAPS, narrow, "densepose")
    box = box_head.box_head((SMALL, SMALL, width), num_classes, kind == "c4", narrow)
    rpn = rpn_head(channels, per_cell)
    return Network(kind, features, rpn, box, region, mask, keypoint, surface)


@keras.saving.register_keras_serializable("moco_tf")
class Network(keras.Model):
    """The parts of a two-stage detector.

    Args:
        kind: of `KINDS`.
        features: `keras.Model` from normalised images, NxHxWx3, to a list of maps.
        rpn, box: of `rpn_head` and `box_head`.
        region: of `features.c4`; only for "c4".
        mask, keypoint, densepose: of `mask_head`, `keypoint_head` and this, or None.
    """

    def __init__(
        self,
        kind,
        features,
        rpn,
        box,
        region=None,
        mask=None,
        keypoint=None,
        densepose=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.kind = kind
        self.features, self.rpn, self.box = features, rpn, box
        self.region, self.mask, self.keypoint = region, mask, keypoint
        self.densepose = densepose
        self.built = True

    @property
    def num_classes(self):
        """K."""
        return self.box.output[1].shape[1]

    @property
    def outlines(self):
        """Whether it has a head of more than boxes."""
        return any((self.mask, self.keypoint, self.densepose))

    @property
    def strides(self):
        """Pixels between cells, of each map."""
        return (4, 8, 16, 32, 64) if self.kind == "fpn" else (16,)

    def call(self, images, training=False):
        """Maps of images, and what the RPN says to them.

        Args:
            images: float32 NxHxWx3, normalised; for "fpn" H and W must be multiples of 32.

        Returns:
            maps: list of NxhxwxC; anchors: list of float32 Ax4, of each; logits, deltas: lists of
            NxA and NxAx4.
        """
        maps = tf.nest.flatten(self.features(images, training=training))
        of_level = [(size,) for size in anchors.SIZES_PX]
        sizes = of_level if self.kind == "fpn" else [anchors.SIZES_PX]
        grids = [
            anchors.grid_anchors(anchors.cell_anchors(s), stride, *tf.unstack(tf.shape(m)[1:3]))
            for s, stride, m in zip(sizes, self.strides, maps)
        ]
        logits, deltas = zip(*[self.rpn(m) for m in maps])
        return maps, grids, logits, deltas

    def regions(self, maps, boxes, side, training=False, **options):
        """What the heads take.

        Args:
            maps: of `call`.
            boxes: float32 NxRx4, px, within the images.
            side: S, `SMALL` for the box head or `LARGE` for the others.
            options: of `roi_align.pool`.

        Returns:
            (N*R)xSxSxC; for "c4" those of 7x7 for both.
        """
        if self.kind == "fpn":
            maps = maps[:4]  # P6 has anchors only
        if self.region:
            side = LARGE
        x = pool(maps, self.strides[: len(maps)], boxes, side, **options)
        x = tf.reshape(x, [-1, *x.shape[2:]])
        return self.region(x, training=training) if self.region else x

    def norms(self):
        """All BN that is trained."""
        parts = [self.features, *([self.region] if self.region else [])]
        layers = [layer for part in parts for layer in part.layers]
        return [layer for layer in layers if isinstance(layer, BatchNorm) and layer.trainable]

    def get_config(self):
        names = ("kind", "features", "rpn", "box", "region", "mask", "keypoint", "densepose")
        return super().get_config() | {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        revive = keras.saving.deserialize_keras_object
        return cls(**{k: revive(v) if isinstance(v, dict) else v for k, v in config.items()})
