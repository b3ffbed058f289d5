"""RetinaNet, the one-stage detector: classifies every anchor and refines its box.

keras-cv provides the network (the pyramid, both heads and what joins them, all of 256 channels) and
the focal loss. keras-cv is frozen upstream (0.9.0) and gets no fixes. These parts are our own:

- anchors and matching: keras-cv's label encoder needs image sizes that are known when the graph is
  made, and knows no crowds. Ours lie where detectron2's do and are not cut off at the borders;
- the box loss, plain L1 as in the recipe: keras-cv's averages coordinates;
- training, suppression and scoring, shared with the other detectors: keras-cv's metrics leave out
  images without detections.

Source: arXiv:1708.02002; detectron2/modeling/meta_arch/retinanet.py, configs/Base-RetinaNet.yaml.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.detection.model import anchors, box_head, feature_maps, matching, rpn
from moco_tf.detection.model import boxes as box_ops
from moco_tf.detection.model.detector import Detector
from moco_tf.detection.model.nms import nms_of_classes

LEVELS = {"P3": 8, "P4": 16, "P5": 32, "P6": 64, "P7": 128}  # px between cells
STAGES = {"P3": 2, "P4": 3, "P5": 4}  # of the backbone, whose last maps the pyramid takes
SCALES = tuple(2 ** (i / 3) for i in range(3))  # of the size of a level's anchors
CONVS, PRIOR = 4, 0.01  # of a head, before the last; probability of a class at the start
NEGATIVE_IOU, POSITIVE_IOU = 0.4, 0.5
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # factors of the deltas
CANDIDATES = 1000  # of a level before NMS at most


def make_retinanet(
    encoder: keras.Model,
    num_classes: int,
    *,
    frozen_bn: bool = False,
    random_init: bool = False,
    seed: int = 0,
) -> "RetinaNetwork":
    """Builds a RetinaNet on the backbone of an encoder.

    MoCo's networks have BN in new layers, but keras-cv's pyramid does not: each of its maps gets
    one, synchronized over replicas. The heads have none, as in detectron2.

    Args:
        encoder: one of our ResNets with ImageNet's stem, and its head.
        num_classes: K.
        frozen_bn: makes BN constant, see feature_maps.py.
        random_init: draws new weights for the backbone, the control without pre-training.
        seed: seed of the new weights.

    Returns:
        `RetinaNetwork`, with random heads.

    Raises:
        ValueError: for a backbone with another stem than ImageNet's.
    """
    from keras_cv.models import RetinaNet
    from keras_cv.models.retinanet import PredictionHead

    backbone = feature_maps.backbone_for_maps(encoder, frozen_bn, random_init, seed)
    last = {level: feature_maps.last_layer(backbone, stage) for level, stage in STAGES.items()}
    backbone.pyramid_level_inputs = {level: layer.name for level, layer in last.items()}
    anchors_per_cell = len(SCALES) * len(anchors.RATIOS)

    def head(outputs, bias, name):
        bias = keras.initializers.Constant(bias)
        return PredictionHead(anchors_per_cell * outputs, bias, num_conv_layers=CONVS, name=name)

    whole = RetinaNet(
        backbone,
        num_classes,
        bounding_box_format="xyxy",
        feature_pyramid=_pyramid({k: layer.output for k, layer in last.items()}, frozen_bn),
        classification_head=head(num_classes, -np.log(1 / PRIOR - 1), "class_head"),
        box_head=head(4, 0.0, "box_head"),
    )
    # A plain model, because keras-cv's class cannot be loaded with a backbone of another package.
    return RetinaNetwork(keras.Model(whole.input, whole.output, name="retinanet"))


def _pyramid(maps, frozen_bn):
    """keras-cv's pyramid: a dict of the last maps of stages to a list of the maps of `LEVELS`."""
    from keras_cv.models.retinanet import FeaturePyramid

    inputs = {level: keras.Input(x.shape[1:], name=level) for level, x in maps.items()}
    outputs = FeaturePyramid(name="pyramid")(inputs)
    if not frozen_bn:
        outputs = [
            BatchNorm(synchronized=True, name=f"{level}.bn")(x)
            for level, x in zip(LEVELS, outputs, strict=True)
        ]
    return keras.Model(inputs, list(outputs), name="normalized_pyramid")


@keras.saving.register_keras_serializable("moco_tf")
class RetinaNetwork(keras.Model):
    """The part of a RetinaNet that has weights, saved in one file.

    Args:
        heads: `keras.Model` from a dict with images, NxHxWx3, to a dict of box, NxAx4, and
            classification, NxAxK.
    """

    architecture = "retinanet"
    mask = keypoint = densepose = None

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.built = True

    @property
    def num_classes(self):
        """K."""
        return self.heads.output["classification"].shape[-1]

    def call(self, images, training=False):
        """Anchors of images, and the heads' outputs for them.

        Args:
            images: float32 NxHxWx3, normalized; H and W must be multiples of 32.

        Returns:
            grids: list of float32 Ax4, the anchors of each level.
            logits: list of NxAxK.
            deltas: list of NxAx4.
        """
        outputs = self.heads({"images": images}, training=training)
        height, width = tf.unstack(tf.shape(images)[1:3])
        grids = []
        for size, stride in zip(anchors.SIZES_PX, LEVELS.values(), strict=True):
            cells = anchors.cell_anchors([size * scale for scale in SCALES])
            grids.append(
                anchors.grid_anchors(cells, stride, -(-height // stride), -(-width // stride))
            )
        numbers = [tf.shape(grid)[0] for grid in grids]
        logits = tf.split(outputs["classification"], numbers, axis=1, num=len(grids))
        deltas = tf.split(outputs["box"], numbers, axis=1, num=len(grids))
        return grids, logits, deltas

    def norms(self):
        """List of all `BatchNorm` layers that are trained."""
        layers = [layer for part in self.heads.layers for layer in getattr(part, "layers", [])]
        return [layer for layer in layers if isinstance(layer, BatchNorm) and layer.trainable]

    def get_config(self):
        return super().get_config() | {"heads": self.heads}

    @classmethod
    def from_config(cls, config):
        import keras_cv  # noqa: F401  # registers its layers

        return cls(**config | {"heads": keras.saving.deserialize_keras_object(config["heads"])})


class RetinaNetDetector(Detector):
    """Trains a `RetinaNetwork` and predicts with it, as `Detector` does with a `Network`.

    It uses `detections` and `lowest_score` of `RCNNSettings` only.
    """

    def __init__(self, network: RetinaNetwork, *args, **kwargs):
        super().__init__(network, *args, **kwargs)
        self.NAMES = ("loss", "box_class", "box_delta")

    def losses(self, batch):
        """The losses of `step`. Updates BN's statistics, but no weights."""
        grids, logits, deltas = self.network(self._normalize(batch["x"]), training=True)
        class_loss, box_loss = losses(
            grid=tf.concat(grids, 0),
            logits=tf.concat(logits, 1),
            deltas=tf.concat(deltas, 1),
            truth=batch["boxes"],
            label=batch["label"],
        )
        return {"loss": class_loss + box_loss, "box_class": class_loss, "box_delta": box_loss}

    def predict(self, images, size):
        """Detects the objects in images.

        Args, Returns: same as in `Detector.predict`, without masks and keypoints.
        """
        grids, logits, deltas = self.network(self._normalize(images))
        return detections(
            grids,
            logits,
            deltas,
            size=size,
            max_detections=self.settings.detections,
            lowest_score=self.settings.lowest_score,
        )


def losses(
    grid: tf.Tensor, logits: tf.Tensor, deltas: tf.Tensor, truth: tf.Tensor, label: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The losses of all anchors, except those between negative and positive, and in crowds.

    Args:
        grid: float32 Ax4, the anchors of all levels.
        logits: float32 NxAxK.
        deltas: float32 NxAx4.
        truth: float32 NxGx4, boxes of the instances, see `matching.match`.
        label: int32 NxG, their classes, see `matching.match`.

    Returns:
        The focal loss (nats) and the L1 distance of the positives' deltas, both divided by the
        number of positives: its mean over the replicas, at least one in all. detectron2 takes a
        running mean over the steps of each replica instead.
    """
    from keras_cv.losses import FocalLoss

    index, positive, negative = matching.match(
        grid, truth, label, NEGATIVE_IOU, POSITIVE_IOU, low_quality=True
    )
    target = tf.where(positive, tf.gather(label, index, batch_dims=1), -1)  # NxA
    focal = FocalLoss(ALPHA, GAMMA, from_logits=True, reduction="none")(
        tf.one_hot(target, logits.shape[-1]), logits
    )  # NxA
    focal = tf.reduce_sum(tf.where(positive | negative, focal, 0.0))
    matched = tf.gather(truth, index, batch_dims=1)  # NxAx4
    distance = rpn.box_distance(grid, matched, deltas, WEIGHTS, positive)
    number = distribute.mean(tf.reduce_sum(tf.cast(positive, tf.float32)))
    number = tf.maximum(number, 1 / distribute.num_replicas())
    return focal / number, distance / number


def detections(
    grids: Sequence[tf.Tensor],
    logits: Sequence[tf.Tensor],
    deltas: Sequence[tf.Tensor],
    size: tf.Tensor,
    max_detections: int,
    lowest_score: float,
) -> dict[str, tf.Tensor]:
    """The detections of each image, from the outputs of `RetinaNetwork`.

    Args:
        grids: float32 Ax4, the anchors of each level.
        logits: float32 NxAxK of each level.
        deltas: float32 NxAx4 of each level.
        size: int32 Nx2, heights and widths of the images.
        max_detections: D, detections to keep in each image at most.
        lowest_score: a detection needs a higher score.

    Returns:
        The same dict as `box_head.detections`.
    """
    boxes, scores, labels = [], [], []
    classes = logits[0].shape[-1]
    for grid, logit, delta in zip(grids, logits, deltas, strict=True):
        score = tf.sigmoid(tf.reshape(logit, [logit.shape[0], -1]))  # Nx(AK)
        score, best = tf.math.top_k(score, tf.minimum(CANDIDATES, tf.shape(score)[1]))
        anchor = tf.gather(grid, best // classes)
        delta = tf.gather(delta, best // classes, batch_dims=1)
        boxes.append(box_ops.clip(box_ops.decode(anchor, delta, WEIGHTS), size))
        scores.append(tf.where(score > lowest_score, score, float("-inf")))
        labels.append(best % classes)
    boxes, score = tf.concat(boxes, 1), tf.concat(scores, 1)  # NxPx4, NxP
    is_class = tf.concat(labels, 1)[:, None] == tf.range(classes)[:, None]  # NxKxP
    score = tf.where(is_class, score[:, None], float("-inf"))
    index, label, score = nms_of_classes(
        score, lambda _: boxes, box_head.NMS_IOU, max_detections
    )  # NxD
    return box_head.filled(tf.gather(boxes, index, batch_dims=1), score, label)
