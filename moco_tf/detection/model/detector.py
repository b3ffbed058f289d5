"""Training and inference of an R-CNN: the losses of a step, predictions, and BN statistics."""

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from moco_tf import distribute, updates
from moco_tf.data.random_key import random_key
from moco_tf.detection.model import box_head, densepose_head, keypoint_head, mask_head, rpn
from moco_tf.detection.model.network import LARGE, SMALL, Network
from moco_tf.detection.model.settings import RCNN_SETTINGS, RCNNSettings

ANCHORS, REGIONS = 3, 4  # draws for an image; pipeline.py has others


class Detector(keras.Model):
    """Trains a `Network` by the sum of its heads' losses, and predicts with it.

    Args:
        network: `Network`.
        normalize: function from uint8 images to what the network takes.
        settings: `RCNNSettings`; by default those of the network's architecture.
        static_shapes: pools regions in the way that XLA compiles, see roi_align.py.
        seed: seed of the draws of anchors and regions.

    Attributes:
        NAMES: names of the losses returned by `step`, "loss" first.

    Raises:
        ValueError: for more regions than proposals.

    Example, with a batch of `pipeline.detection_dataset`:

        model = Detector(network, lambda x: tf.cast(x, tf.float32) / 127.5 - 1)
        model.compile(moco_tf.SGD(0.02, momentum=0.9, weight_decay=1e-4))
        model.optimizer.build(model.trainable_variables)
        losses = tf.function(model.step)(batch)
        detections = model.predict(batch["x"], batch["size"])
    """

    def __init__(
        self,
        network: Network,
        normalize: Callable[[tf.Tensor], tf.Tensor],
        settings: RCNNSettings | None = None,
        static_shapes: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.network = network
        self.settings = settings or RCNN_SETTINGS[network.architecture]
        if self.settings.regions > self.settings.after_nms[0]:
            raise ValueError(
                "`regions` must be at most `after_nms` of training; regions are drawn from these "
                f"proposals. Received: {self.settings}."
            )
        self._normalize = normalize
        self._pooling = {
            "sampling_ratio": self.settings.sampling_ratio,
            "aligned": self.settings.roi_aligned,
            "static_shapes": static_shapes,
        }
        self._seed = seed
        names = ["loss", "rpn_class", "rpn_box", "box_class", "box_delta"]
        if network.mask:
            names.append("mask")
        if network.keypoint:
            names.append("keypoint")
        if network.densepose:
            names.extend(densepose_head.NAMES)
        self.NAMES = tuple(names)
        self.built = True

    def step(self, batch):
        """One update of the weights.

        Args:
            batch: dict in the form of `pipeline.detection_dataset`: x: uint8 NxHxWx3, padded to the
                right and below; size: int32 Nx2, height and width of the image within it; boxes:
                float32 NxGx4; label: int32 NxG, classes from 0, -1 for an empty row, -2 for a
                crowd; mask: uint8 NxGxTxT, each instance's within its box; keypoints: float32
                NxGxKx3; densepose_points and densepose_masks, see `densepose.unpacked`, G persons
                each; step: int64 N, the step.

        Returns:
            Dict of this replica's losses, scalars named `NAMES`.
        """
        losses, _ = updates.minimize(
            self.optimizer,
            lambda: self.losses(batch),
            self.trainable_variables,
            self.network.non_trainable_variables,
        )
        return losses

    def losses(self, batch):
        """The losses of `step`. Updates BN's statistics, but no weights."""
        network, settings = self.network, self.settings
        truth, label = batch["boxes"], batch["label"]
        anchor_keys, region_keys = self._keys(batch["step"])
        losses = {}
        maps, grids, logits, deltas = network(self._normalize(batch["x"]), training=True)
        losses["rpn_class"], losses["rpn_box"] = rpn.losses(
            anchors=tf.concat(grids, 0),
            logits=tf.concat(logits, 1),
            deltas=tf.concat(deltas, 1),
            truth=truth,
            label=label,
            keys=anchor_keys,
        )
        boxes, is_valid = rpn.proposals(
            grids,
            logits,
            deltas,
            size=batch["size"],
            before_nms=settings.before_nms[0],
            after_nms=settings.after_nms[0],
        )
        sampled = box_head.sample(boxes, is_valid, truth, label, region_keys, settings.regions)
        regions = network.regions(maps, sampled.boxes, SMALL, training=True, **self._pooling)
        logits, deltas = network.box(regions)
        losses["box_class"], losses["box_delta"] = box_head.losses(
            logits=self._by_image(logits, truth),
            deltas=self._by_image(deltas, truth),
            regions=sampled,
            truth=truth,
            label=label,
            beta=settings.box_beta,
        )
        if network.predicts_outlines:
            # All positives are among the first regions.
            number = int(settings.regions * box_head.POSITIVE_SHARE)
            sampled = sampled.first(number)
            if network.region:
                regions = self._by_image(regions, truth)[:, :number]
                regions = tf.reshape(regions, [-1, *regions.shape[2:]])
            else:
                regions = network.regions(maps, sampled.boxes, LARGE, **self._pooling)
            losses |= self._outline_losses(regions, sampled, batch)
        return {"loss": tf.reduce_sum(tf.stack(list(losses.values())))} | losses

    def _outline_losses(self, regions, sampled, batch):
        """The losses of the mask, keypoint and DensePose heads."""
        boxes, index, positive = sampled.boxes, sampled.index, sampled.positive
        truth, losses = batch["boxes"], {}
        if self.network.mask:
            logits = self._by_image(self.network.mask(regions), truth)  # NxBxSxSxK
            target = mask_head.targets(
                batch["mask"],
                truth,
                boxes,
                index,
                size=logits.shape[2],
                static_shapes=self._pooling["static_shapes"],
            )
            label = tf.gather(batch["label"], index, batch_dims=1)
            losses["mask"] = mask_head.loss(logits, target, label, positive)
        if self.network.keypoint:
            logits = self._by_image(self.network.keypoint(regions), truth)
            keypoints = tf.gather(batch["keypoints"], index, batch_dims=1)  # NxBxKx3
            cell, is_counted = keypoint_head.targets(keypoints, boxes, logits.shape[2])
            is_counted &= positive[..., None]
            losses["keypoint"] = keypoint_head.loss(logits, cell, is_counted)
        if self.network.densepose:
            losses |= densepose_head.losses(
                self._by_image(self.network.densepose(regions), truth),
                points=tf.gather(batch["densepose_points"], index, batch_dims=1),
                masks=tf.gather(batch["densepose_masks"], index, batch_dims=1),
                truth=tf.gather(truth, index, batch_dims=1),
                boxes=boxes,
                positive=positive,
            )
        return losses

    def predict(self, images, size):
        """Detects the objects in images.

        Args:
            images: uint8 NxHxWx3, padded to the right and below.
            size: int32 Nx2, height and width of the image within.

        Returns:
            Dict of boxes: float32 NxDx4, px; score: float32 NxD; label: int32 NxD, -1 after the
            last. A mask head adds mask: float32 NxDxSxS, probabilities within the box (S = 28, 14
            for "c4"). A keypoint head adds keypoints: float32 NxDxKx3: x, y, score. A DensePose
            head adds densepose: float32 NxDx56x56x3, see `densepose_head.decode`.
        """
        network, settings = self.network, self.settings
        maps, grids, logits, deltas = network(self._normalize(images))
        boxes, is_valid = rpn.proposals(
            grids,
            logits,
            deltas,
            size=size,
            before_nms=settings.before_nms[1],
            after_nms=settings.after_nms[1],
        )
        regions = network.regions(maps, boxes, SMALL, **self._pooling)
        logits, deltas = network.box(regions)
        detections = box_head.detections(
            logits=self._by_image(logits, images),
            deltas=self._by_image(deltas, images),
            boxes=boxes,
            is_valid=is_valid,
            size=size,
            max_detections=settings.detections,
            lowest_score=settings.lowest_score,
        )
        if network.predicts_outlines:
            regions = network.regions(maps, detections["boxes"], LARGE, **self._pooling)
        if network.mask:
            logits = self._by_image(network.mask(regions), images)
            detections["mask"] = tf.sigmoid(mask_head.of_class(logits, detections["label"]))
        if network.keypoint:
            logits = self._by_image(network.keypoint(regions), images)
            detections["keypoints"] = keypoint_head.decode(logits, detections["boxes"])
        if network.densepose:
            surface = self._by_image(network.densepose(regions), images)
            detections["densepose"] = densepose_head.decode(surface)
        return detections

    @property
    def trainable_variables(self):
        """The network's."""
        return self.network.trainable_variables

    def _keys(self, step):
        """Keys of the draws of anchors and of regions, for each image: two of int64 Nx2."""
        rows = step.shape[0]
        position = step * rows * distribute.num_replicas()
        position += tf.cast(distribute.local_rows(rows), tf.int64)  # N, of all that are trained on

        def keys(draw):
            return tf.stack(
                [random_key("augmentation", self._seed, p, draw) for p in tf.unstack(position)]
            )

        return keys(ANCHORS), keys(REGIONS)

    @staticmethod
    def _by_image(x, reference):
        """Reshapes (N*R)x... to NxRx..., with the N of a reference tensor."""
        return tf.reshape(x, [reference.shape[0], -1, *x.shape[1:]])


def estimate_statistics(model: Detector, iterator: Iterator, batches: int = 200) -> None:
    """Sets BN's statistics to their means over batches, in place of running ones.

    Args:
        model: `Detector`; its weights stay as they are.
        iterator: iterator over distributed training batches.
        batches: number of batches to take.

    Source: detectron2's precise BN (fvcore/nn/precise_bn.py).
    """
    norms = model.network.norms()
    variables = [v for norm in norms for v in (norm.moving_mean, norm.moving_variance)]
    momenta = [norm.momentum for norm in norms]

    @tf.function(autograph=False)
    def run(iterator):
        distribute.run(model.distribute_strategy, model.losses, next(iterator))

    sums = [0.0] * len(variables)
    for norm in norms:
        norm.momentum = 0.0  # the statistics are the batch's own
    try:
        for _ in range(batches):
            run(iterator)
            sums = [total + v.numpy() for total, v in zip(sums, variables, strict=True)]
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for total, v in zip(sums, variables, strict=True):
        v.assign(total / batches)
