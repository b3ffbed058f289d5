"""RetinaNet, the one-stage detector: every anchor is classified, and its box is refined.

Of keras-cv are the network (the pyramid, both heads and what joins them, all of 256 channels) and
the focal loss. It is frozen upstream (0.9.0) and gets no fixes. Not of it are:

- anchors and matching: its label encoder needs image sizes that are known when the graph is made,
  and knows no crowds. Ours have detectron2's places and are not cut off at the borders;
- the smooth L1 loss: its own jumps at the cutoff unless that is 1, and averages coordinates;
- training, suppression and scoring, which are those of the other detectors: its metrics leave out
  images without detections.

Source: arXiv:1708.02002; detectron2/modeling/meta_arch/retinanet.py.
"""

import keras
import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.detection.model import anchors, box_head, feature_maps, matching, rpn
from moco_tf.detection.model import boxes as box_ops
from moco_tf.detection.model.detector import Detector

LEVELS = {"P3": 8, "P4": 16, "P5": 32, "P6": 64, "P7": 128}  # px between cells
STAGES = {"P3": 2, "P4": 3, "P5": 4}  # of the backbone, whose last maps the pyramid takes
SCALES = tuple(2 ** (i / 3) for i in range(3))  # of the size of a level's anchors
CONVS, PRIOR = 4, 0.01  # of a head, before the last; probability of a class at the start
NEGATIVE_IOU, POSITIVE_IOU = 0.4, 0.5
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
WEIGHTS, BETA = (1.0, 1.0, 1.0, 1.0), 0.1  # of the deltas, and of their smooth L1 loss
CANDIDATES = 1000  # of a level before NMS at most


def make_retinanet(encoder, num_classes, *, frozen_bn=False, random_init=False, seed=0):
    """RetinaNet on the backbone of an encoder.

    MoCo's networks have BN in new layers, which keras-cv's pyramid has not: each of its maps gets
    one, synchronised over replicas. The heads have none, as those of detectron2.

    Args:
        encoder, frozen_bn, random_init, seed: as of `network.make_network`.
        num_classes: K.

    Returns:
        A `RetinaNetwork`.

    Raises:
        ValueError: for a backbone with another stem than ImageNet's.
    """
    from keras_cv.models import RetinaNet
    from keras_cv.models.retinanet import PredictionHead

    backbone = feature_maps.backbone_for_maps(encoder, frozen_bn, random_init, seed)
    last = {level: feature_maps.last_layer(backbone, stage) for level, stage in STAGES.items()}
    backbone.pyramid_level_inputs = {level: layer.name for level, layer in last.items()}
    per_cell = len(SCALES) * len(anchors.RATIOS)

    def head(outputs, bias, name):
        bias = keras.initializers.Constant(bias)
        return PredictionHead(per_cell * outputs, bias, num_conv_layers=CONVS, name=name)

    whole = RetinaNet(
        backbone,
        num_classes,
        bounding_box_format="xyxy",
        feature_pyramid=_pyramid({k: layer.output for k, layer in last.items()}, frozen_bn),
        classification_head=head(num_classes, -np.log(1 / PRIOR - 1), "class_head"),
        box_head=head(4, 0.0, "box_head"),
    )
    # Of its own class it could not be loaded again: our backbone is none of keras-cv's.
    return RetinaNetwork(keras.Model(whole.input, whole.output, name="retinanet"))


def _pyramid(maps, frozen_bn):
    """keras-cv's: a dict of the last maps of stages to a list of those of `LEVELS`."""
    from keras_cv.models.retinanet import FeaturePyramid

    inputs = {level: keras.Input(x.shape[1:], name=level) for level, x in maps.items()}
    outputs = FeaturePyramid(name="pyramid")(inputs)
    if not frozen_bn:
        outputs = [
            BatchNorm(synchronized=True, name=f"{level}.bn")(x) for level, x in zip(LEVELS, outputs)
        ]
    return keras.Model(inputs, list(outputs), name="normalized_pyramid")


@keras.saving.register_keras_serializable("moco_tf")
class RetinaNetwork(keras.Model):
    """The part of a RetinaNet that has weights, saved in one file.

    Args:
        heads: `keras.Model` from a dict of images, NxHxWx3, to one of box, NxAx4, and
            classification, NxAxK.
    """

    architecture = "retinanet"
    mask = keypoint = densepose = None

    def __init__(self, box_head, **kwargs):
        super().__init__(**kwargs)
        self.heads = box_head
        self.built = True

    @property
    def num_classes(self):
        """K."""
        return self.heads.output["classification"].shape[-1]

    def call(self, images, training=False):
        """What the heads say to the anchors of images.

        Args:
            images: float32 NxHxWx3, normalised; H and W must be multiples of 32.

        Returns:
            Three lists, of all levels: anchors, float32 Ax4; logits, NxAxK; deltas, NxAx4.
        """
        found = self.heads({"images": images}, training=training)
        height, width = tf.unstack(tf.shape(images)[1:3])
        grids = [
            anchors.grid_anchors(
                anchors.cell_anchors([size * scale for scale in SCALES]),
                *(stride, -(-height // stride), -(-width // stride)),
            )
            for size, stride in zip(anchors.SIZES_PX, LEVELS.values())
        ]
        numbers = [tf.shape(grid)[0] for grid in grids]
        logits, deltas = (
            tf.split(found[name], numbers, axis=1, num=len(grids))
            for name in ("classification", "box")
        )
        return grids, logits, deltas

    def norms(self):
        """All BN that is trained."""
        layers = [layer for part in self.heads.layers for layer in getattr(part, "layers", [])]
        return [layer for layer in layers if isinstance(layer, BatchNorm) and layer.trainable]

    def get_config(self):
        return super().get_config() | {"heads": self.heads}

    @classmethod
    def from_config(cls, config):
        import keras_cv  # noqa: F401  # registers its layers

        return cls(**config | {"heads": keras.saving.deserialize_keras_object(config["heads"])})


class RetinaNetDetector(Detector):
    """Trains a `RetinaNetwork` and predicts with it, as `Detector` does it with a `Network`.

    Of `RCNNSettings`, only detections and lowest_score are of meaning.
    """

    def __init__(self, network, *args, **kwargs):
        super().__init__(network, *args, **kwargs)
        self.NAMES = ("loss", "box_class", "box_delta")

    def losses(self, batch):
        """What `step` returns, without the update but for BN's statistics."""
        grids, logits, deltas = self.network(self._normalize(batch["x"]), training=True)
        class_loss, box_loss = losses(
            *(tf.concat(grids, 0), tf.concat(logits, 1), tf.concat(deltas, 1)),
            *(batch["boxes"], batch["label"]),
        )
        return {"loss": class_loss + box_loss, "box_class": class_loss, "box_delta": box_loss}

    def predict(self, images, size):
        """What is in images.

        Args, Returns: as of `Detector.predict`, without masks and keypoints.
        """
        found = self.network(self._normalize(images))
        return detections(*found, size, self.numbers.detections, self.numbers.lowest_score)


def losses(grid, logits, deltas, truth, label):
    """The losses of all anchors, but of those between negative and positive, and in crowds.

    Args:
        grid: float32 Ax4, anchors of all levels.
        logits, deltas: float32 NxAxK and NxAx4.
        truth, label: as of `matching.match`.

    Returns:
        The focal loss (nats) and the smooth L1 distance of the positives' deltas, both divided by
        the number of positives: its mean over the replicas, at least one in all. detectron2 takes
        a running mean over the steps of a replica's own instead.
    """
    from keras_cv.losses import FocalLoss

    index, positive, negative = matching.match(
        grid, truth, label, NEGATIVE_IOU, POSITIVE_IOU, low_quality=True
    )
    own = tf.where(positive, tf.gather(label, index, batch_dims=1), -1)  # NxA
    focal = FocalLoss(ALPHA, GAMMA, from_logits=True, reduction="none")(
        tf.one_hot(own, logits.shape[-1]), logits
    )  # NxA
    focal = tf.reduce_sum(tf.where(positive | negative, focal, 0.0))
    found = tf.gather(truth, index, batch_dims=1)  # NxAx4
    distance = rpn.l1(grid, found, deltas, WEIGHTS, positive, BETA)
    number = distribute.mean(tf.reduce_sum(tf.cast(positive, tf.float32)))
    number = tf.maximum(number, 1 / distribute.num_replicas())
    return focal / number, distance / number


def detections(grids, logits, deltas, size, number, lowest_score):
    """The detections of an image.

    Args:
        grids, logits, deltas: of `RetinaNetwork`.
        size: int32 Nx2, heights and widths of the images.
        number: D, detections to keep at most.
        lowest_score: detections need more.

    Returns:
        As of `heads.detections`.
    """
    boxes, scores, labels = [], [], []
    for grid, logit, delta in zip(grids, logits, deltas):
        classes = logit.shape[-1]
        score = tf.sigmoid(tf.reshape(logit, [logit.shape[0], -1]))  # Nx(AK)
        score, best = tf.math.top_k(score, tf.minimum(CANDIDATES, tf.shape(score)[1]))
        anchor, delta = (
            tf.gather(grid, best // classes),
            tf.gather(delta, best // classes, batch_dims=1),
        )
        boxes.append(box_ops.clip(box_ops.decode(anchor, delta, WEIGHTS), size))
        scores.append(tf.where(score > lowest_score, score, float("-inf")))
        labels.append(best % classes)
    return box_head.suppressed(*(tf.concat(x, 1) for x in (boxes, scores, labels)), number)
