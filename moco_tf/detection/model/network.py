"""The R-CNN network: backbone maps, RPN and heads, built from an encoder and saved in one file."""

import keras
import tensorflow as tf

from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.backbones.encoder import Encoder
from moco_tf.detection.model import anchors, feature_maps
from moco_tf.detection.model import densepose_head as densepose_heads
from moco_tf.detection.model.box_head import box_head
from moco_tf.detection.model.keypoint_head import keypoint_head
from moco_tf.detection.model.mask_head import mask_head
from moco_tf.detection.model.roi_align import pool
from moco_tf.detection.model.rpn import rpn_head

ARCHITECTURES = ("c4", "dc5", "fpn")
SMALL, LARGE = 7, 14  # sides of the regions that the heads take


def make_network(
    encoder: Encoder,
    architecture: str,
    num_classes: int,
    *,
    masks: bool = False,
    num_keypoints: int = 0,
    densepose: bool = False,
    frozen_bn: bool = False,
    random_init: bool = False,
    seed: int = 0,
    width_divisor: int = 1,
) -> "Network":
    """Builds a Faster, Mask or Keypoint R-CNN on the backbone of an encoder.

    Args:
        encoder: one of our ResNets with ImageNet's stem, and its head.
        architecture: "c4": maps of stage 3, and stage 4 applied to each region. "dc5": maps of a
            dilated stage 4, reduced. "fpn": a feature pyramid. The last two have a box head of two
            linear layers.
        num_classes: K.
        masks: adds a mask head.
        num_keypoints: keypoints of an instance; 0 adds no keypoint head.
        densepose: adds a DensePose head.
        frozen_bn: makes BN constant, see feature_maps.py.
        random_init: draws new weights for the backbone, the control without pre-training.
        seed: seed of the new weights.
        width_divisor: divides the widths of the pyramid, of "dc5" and of the heads, for small
            tasks.

    Returns:
        `Network`, with random heads.

    Raises:
        ValueError: for another architecture, a backbone with another stem, or keypoints or
            DensePose with "c4".

    Example:
        >>> from moco_tf import Encoder, resnet
        >>> encoder = Encoder(resnet.resnet18(width=8))
        >>> network = make_network(encoder, "fpn", num_classes=3, masks=True, width_divisor=8)
        >>> network.num_classes
        3
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"`architecture` must be one of {', '.join(ARCHITECTURES)}. Received: {architecture!r}."
        )
    if architecture == "c4" and (num_keypoints or densepose):
        raise ValueError(
            'Keypoint and DensePose heads need architecture="fpn" or "dc5"; the regions of "c4" '
            "are half as large. "
            f'Received: architecture="c4", num_keypoints={num_keypoints}, densepose={densepose}.'
        )
    backbone = feature_maps.backbone_for_maps(
        encoder,
        frozen_bn=frozen_bn,
        random_init=random_init,
        seed=seed,
        last_dilation=2 if architecture == "dc5" else 1,
    )
    region = None
    if architecture == "c4":
        features, region = feature_maps.c4(backbone, frozen_bn)
    elif architecture == "dc5":
        channels = feature_maps.DC5_CHANNELS // width_divisor
        features = feature_maps.dc5(backbone, frozen_bn, channels)
    else:
        features = feature_maps.fpn(backbone, frozen_bn, feature_maps.CHANNELS // width_divisor)
    channels = features.outputs[0].shape[-1]
    width = region.output.shape[-1] if region else channels
    anchors_per_cell = len(anchors.RATIOS)
    if architecture != "fpn":  # all sizes lie on the only map
        anchors_per_cell *= len(anchors.SIZES_PX)
    # Stage 4 of "c4" has halved the regions, and takes the place of the mask head's convolutions.
    side, mask_convs = (SMALL, 0) if architecture == "c4" else (LARGE, 4)
    mask = keypoint = densepose_head = None
    if masks:
        mask = mask_head((side, side, width), num_classes, mask_convs, width_divisor)
    if num_keypoints:
        keypoint = keypoint_head((side, side, width), num_keypoints, width_divisor)
    if densepose:
        densepose_head = keypoint_head(
            (side, side, width), densepose_heads.MAPS, width_divisor, name="densepose"
        )
    box = box_head(
        (SMALL, SMALL, width),
        num_classes,
        average_pool=architecture == "c4",
        width_divisor=width_divisor,
    )
    return Network(
        architecture=architecture,
        features=features,
        rpn=rpn_head(channels, anchors_per_cell),
        box=box,
        region=region,
        mask=mask,
        keypoint=keypoint,
        densepose=densepose_head,
    )


@keras.saving.register_keras_serializable("moco_tf")
class Network(keras.Model):
    """The models of a two-stage detector that have weights.

    Args:
        architecture: one of `ARCHITECTURES`.
        features: `keras.Model` from normalized images, NxHxWx3, to a list of maps.
        rpn: model from one map to objectness and deltas of its anchors, by `rpn_head`.
        box: model from regions to classes and deltas, by `box_head`.
        region: model applied to each region before the heads, by `feature_maps.c4`; None for
            "dc5" and "fpn".
        mask: model from regions to masks, by `mask_head`; or None.
        keypoint: model from regions to heat maps, by `keypoint_head`; or None.
        densepose: model from regions to DensePose's maps, by `keypoint_head`; or None.
    """

    def __init__(
        self,
        architecture,
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
        self.architecture = architecture
        self.features = features
        self.rpn = rpn
        self.box = box
        self.region = region
        self.mask = mask
        self.keypoint = keypoint
        self.densepose = densepose
        self.built = True

    @property
    def num_classes(self):
        """K."""
        return self.box.output[1].shape[1]

    @property
    def predicts_outlines(self):
        """Whether it has a head for more than boxes: masks, keypoints or DensePose."""
        return any((self.mask, self.keypoint, self.densepose))

    @property
    def strides(self):
        """Pixels between the cells of each map."""
        return (4, 8, 16, 32, 64) if self.architecture == "fpn" else (16,)

    def call(self, images, training=False):
        """Maps of images, and the RPN's outputs for the anchors of each map.

        Args:
            images: float32 NxHxWx3, normalized; for "fpn" H and W must be multiples of 32.

        Returns:
            maps: list of NxhxwxC.
            grids: list of float32 Ax4, the anchors of each map.
            logits: list of NxA, objectness.
            deltas: list of NxAx4.
        """
        maps = tf.nest.flatten(self.features(images, training=training))
        if self.architecture == "fpn":
            sizes_of_maps = [(size,) for size in anchors.SIZES_PX]
        else:
            sizes_of_maps = [anchors.SIZES_PX]
        grids, logits, deltas = [], [], []
        for x, sizes, stride in zip(maps, sizes_of_maps, self.strides, strict=True):
            height, width = tf.unstack(tf.shape(x)[1:3])
            cells = anchors.cell_anchors(sizes)
            grids.append(anchors.grid_anchors(cells, stride, height, width))
            objectness, delta = self.rpn(x)
            logits.append(objectness)
            deltas.append(delta)
        return maps, grids, logits, deltas

    def regions(self, maps, boxes, side, training=False, **options):
        """Pools boxes to the regions that the heads take.

        Args:
            maps: list of maps, returned by `call`.
            boxes: float32 NxRx4, px, within the images.
            side: S, `SMALL` for the box head or `LARGE` for the others.
            options: further arguments of `roi_align.pool`.

        Returns:
            (N*R)xSxSxC; for "c4" (N*R)x7x7xC for all heads.
        """
        if self.architecture == "fpn":
            maps = maps[:4]  # P6 has anchors only
        if self.region:
            side = LARGE
        x = pool(maps, self.strides[: len(maps)], boxes, side, **options)
        x = tf.reshape(x, [-1, *x.shape[2:]])
        return self.region(x, training=training) if self.region else x

    def norms(self):
        """List of all `BatchNorm` layers that are trained."""
        models = [self.features]
        if self.region:
            models.append(self.region)
        layers = [layer for model in models for layer in model.layers]
        return [layer for layer in layers if isinstance(layer, BatchNorm) and layer.trainable]

    def get_config(self):
        return super().get_config() | {
            "architecture": self.architecture,
            "features": self.features,
            "rpn": self.rpn,
            "box": self.box,
            "region": self.region,
            "mask": self.mask,
            "keypoint": self.keypoint,
            "densepose": self.densepose,
        }

    @classmethod
    def from_config(cls, config):
        revive = keras.saving.deserialize_keras_object
        return cls(**{k: revive(v) if isinstance(v, dict) else v for k, v in config.items()})
