"""Training a detector, and its predictions."""

import dataclasses

import keras
import tensorflow as tf

from moco_tf import distribute
from moco_tf.data.random_key import random_key
from moco_tf.detection.model import box_head, densepose_head, keypoint_head, mask_head, rpn
from moco_tf.detection.model.network import LARGE, SMALL

ANCHORS, REGIONS = 3, 4  # draws for a slot; pipeline.py has others


@dataclasses.dataclass(frozen=True)
class RCNNSettings:
    """How many boxes are looked at.

    Attributes:
        before_nms, after_nms: proposals of a level before NMS and of an image after it, each for
            (training, test).
        regions: of an image that the heads are trained on, a quarter of them positive.
        detections: of an image at most.
        lowest_score: detections need more.
        box_beta: of `heads.losses`.
        sampling_ratio: of `roi_align`.
    """

    before_nms: tuple[int, int] = (12000, 6000)
    after_nms: tuple[int, int] = (2000, 1000)
    regions: int = 512
    detections: int = 100
    lowest_score: float = box_head.LOWEST_SCORE
    box_beta: float = 0.0
    sampling_ratio: int = 0


# Source: detectron2's defaults and its Base-RCNN-FPN.yaml.
RCNN_SETTINGS = {
    "c4": RCNNSettings(),
    "dc5": RCNNSettings(),
    "fpn": RCNNSettings((2000, 1000), (1000, 1000)),
    "retinanet": RCNNSettings(),
}


class Detector(keras.Model):
    """Trains a network by the sum of its heads' losses.

    Args:
        network: `Network`.
        normalize: function from uint8 images to what the network takes.
        numbers: `RCNNSettings`, by default those of the network's kind.
        products: pools regions in the way that XLA compiles, see `roi_align`.
        seed: int, of the draws of anchors and regions.

    Attributes:
        NAMES: what `step` returns; the loss is first.

    Raises:
        ValueError: for more regions than proposals.
    """

    def __init__(self, network, normalize, numbers=None, products=False, seed=0):
        super().__init__()
        self.network, self._normalize = network, normalize
        self.numbers = numbers or RCNN_SETTINGS[network.architecture]
        if self.numbers.regions > self.numbers.after_nms[0]:
            raise ValueError(
                "`regions` must be at most `after_nms` of training, out of which they are drawn. "
                f"Received: {self.numbers}."
            )
        self._pooling = {"sampling_ratio": self.numbers.sampling_ratio, "products": products}
        self._seed = seed
        parts = [name for name in ("mask", "keypoint") if getattr(network, name)]
        parts += densepose_head.NAMES if network.densepose else []
        self.NAMES = ("loss", "rpn_class", "rpn_box", "box_class", "box_delta", *parts)
        self.built = True

    def step(self, batch):
        """One update; what `training.py` runs.

        Args:
            batch: dict of x: uint8 NxHxWx3, padded to the right and below; size: int32 Nx2, height
                and width of the image within it; boxes: float32 NxGx4; label: int32 NxG, classes
                from 0, -1 for an empty slot, -2 for a crowd; mask: uint8 NxGxTxT, each instance's
                within its box; keypoints: float32 NxGxKx3; densepose_points, densepose_masks: as
                of `densepose.unpacked`, G persons each; step: int64 N, the step.

        Returns:
            Dict of this replica's losses, scalars by `NAMES`.
        """
        losses, _ = distribute.minimize(
            self.optimizer,
            lambda: self.losses(batch),
            self.trainable_variables,
            self.network.non_trainable_variables,
        )
        return losses

    def losses(self, batch):
        """What `step` returns, without the update but for BN's statistics."""
        truth, label, size = batch["boxes"], batch["label"], batch["size"]
        network, numbers, losses = self.network, self.numbers, {}
        keys = self._keys(batch["step"])
        maps, anchors, logits, deltas = network(self._normalize(batch["x"]), training=True)
        losses["rpn_class"], losses["rpn_box"] = rpn.losses(
            *(tf.concat(anchors, 0), tf.concat(logits, 1), tf.concat(deltas, 1)),
            *(truth, label, keys[0]),
        )
        before, after = numbers.before_nms[0], numbers.after_nms[0]
        boxes, found = rpn.proposals(anchors, logits, deltas, size, before, after)
        drawn = box_head.sample(boxes, found, truth, label, keys[1], numbers.regions)
        regions = network.regions(maps, drawn["boxes"], SMALL, training=True, **self._pooling)
        logits, deltas = (self._by_image(x, truth) for x in network.box(regions))
        losses["box_class"], losses["box_delta"] = box_head.losses(
            *(logits, deltas, drawn, truth, label, numbers.box_beta)
        )
        if network.predicts_outlines:
            # All positives are in the first slots.
            first = int(numbers.regions * box_head.POSITIVE_SHARE)
            drawn = {name: x[:, :first] for name, x in drawn.items()}
            if network.region:
                regions = self._by_image(regions, truth)[:, :first]
                regions = tf.reshape(regions, [-1, *regions.shape[2:]])
            else:
                regions = network.regions(maps, drawn["boxes"], LARGE, **self._pooling)
            losses |= self._outlines(regions, drawn, batch)
        return {"loss": tf.add_n(list(losses.values()))} | losses

    def _outlines(self, regions, drawn, batch):
        """The losses of masks, keypoints and DensePose."""
        boxes, index, positive = (drawn[name] for name in ("boxes", "index", "positive"))
        truth, losses = batch["boxes"], {}
        if self.network.mask:
            logits = self._by_image(self.network.mask(regions), truth)  # NxBxSxSxK
            target = mask_head.targets(
                batch["mask"], truth, boxes, index, logits.shape[2], self._pooling["products"]
            )
            label = tf.gather(batch["label"], index, batch_dims=1)
            losses["mask"] = mask_head.loss(logits, target, label, positive)
        if self.network.keypoint:
            logits = self._by_image(self.network.keypoint(regions), truth)
            own = tf.gather(batch["keypoints"], index, batch_dims=1)  # NxBxKx3
            cell, counted = keypoint_head.targets(own, boxes, logits.shape[2])
            losses["keypoint"] = keypoint_head.loss(logits, cell, counted & positive[..., None])
        if self.network.densepose:
            maps = self._by_image(self.network.densepose(regions), truth)
            own = (batch["densepose_points"], batch["densepose_masks"], truth)
            own = (tf.gather(x, index, batch_dims=1) for x in own)
            losses |= densepose_head.losses(maps, *own, boxes, positive)
        return losses

    def predict(self, images, size):
        """What is in images.

        Args:
            images: uint8 NxHxWx3, padded to the right and below.
            size: int32 Nx2, height and width of the image within.

        Returns:
            Dict of boxes: float32 NxDx4, px; score: float32 NxD; label: int32 NxD, -1 after the
            last; and with these heads mask: float32 NxDxSxS, probabilities within the box (S = 28,
            14 for "c4"); keypoints: float32 NxDxKx3: x, y, score; densepose: float32 NxDx56x56x3,
            as of `densepose_head.decode`.
        """
        network, numbers = self.network, self.numbers
        maps, anchors, logits, deltas = network(self._normalize(images))
        before, after = numbers.before_nms[1], numbers.after_nms[1]
        boxes, found = rpn.proposals(anchors, logits, deltas, size, before, after)
        regions = network.regions(maps, boxes, SMALL, **self._pooling)
        logits, deltas = (self._by_image(x, images) for x in network.box(regions))
        found = box_head.detections(
            *(logits, deltas, boxes, found, size, numbers.detections, numbers.lowest_score)
        )
        if network.predicts_outlines:
            regions = network.regions(maps, found["boxes"], LARGE, **self._pooling)
        if network.mask:
            logits = self._by_image(network.mask(regions), images)
            found["mask"] = tf.sigmoid(mask_head.of_class(logits, found["label"]))
        if network.keypoint:
            logits = self._by_image(network.keypoint(regions), images)
            found["keypoints"] = keypoint_head.decode(logits, found["boxes"])
        if network.densepose:
            surface = self._by_image(network.densepose(regions), images)
            found["densepose"] = densepose_head.decode(surface)
        return found

    @property
    def trainable_variables(self):
        """The network's."""
        return self.network.trainable_variables

    def _keys(self, step):
        """Keys of the draws of anchors and of regions, of each image: two of int64 Nx2."""
        rows = step.shape[0]
        slot = step * rows * distribute.num_replicas()
        slot += tf.cast(distribute.local_rows(rows), tf.int64)  # N
        return [
            tf.stack([random_key("augmentation", self._seed, s, draw) for s in tf.unstack(slot)])
            for draw in (ANCHORS, REGIONS)
        ]

    @staticmethod
    def _by_image(x, of):
        """(N*R)x... to NxRx..., N rows as another tensor has."""
        return tf.reshape(x, [of.shape[0], -1, *x.shape[1:]])


def estimate_statistics(model, iterator, batches=200):
    """Sets BN's statistics to their means over batches, in place of running ones.

    Args:
        model: `Detector`; its weights stay.
        iterator: of distributed training batches.
        batches: to take of it.

    Source: detectron2's precise BN (fvcore/nn/precise_bn.py).
    """
    norms = model.network.norms()
    variables = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
    momenta = [norm.momentum for norm in norms]

    @tf.function(autograph=False)
    def run(iterator):
        model.distribute_strategy.run(model.losses, (next(iterator),))

    sums = [0.0] * len(variables)
    for norm in norms:
        norm.momentum = 0.0  # the statistics are the batch's own
    try:
        for _ in range(batches):
            run(iterator)
            sums = [total + v.numpy() for total, v in zip(sums, variables)]
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
    for total, v in zip(sums, variables):
        v.assign(total / batches)
