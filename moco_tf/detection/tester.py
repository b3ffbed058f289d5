"""Testing a detector: predictions for all test images, in their own pixels, and scores."""

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf import distribute
from moco_tf.detection.data import pipeline
from moco_tf.detection.data.masks import pasted_rle
from moco_tf.detection.scoring import cityscapes as cityscapes_scoring
from moco_tf.detection.scoring import coco as coco_scoring
from moco_tf.detection.scoring import densepose as densepose_scoring
from moco_tf.detection.scoring import voc as voc_scoring

KINDS = {"box": "bbox", "mask": "segm", "keypoint": "keypoints", "densepose": "densepose"}
UNITS = np.array([1, 255, 255], np.float32)  # of the part, U and V


class Tester:
    """Predicts whole test images on a strategy, and compares.

    Args:
        config: `Detection`.
        model: `Detector`.
        strategy: of the model.
        annotations: `records.Annotations`, opened for testing.
        fill: uint8 color of the padding, 3.
        surface: `densepose_surface.Surface`; without it DensePose gets no score.

    Attributes:
        kinds: what is predicted, of `KINDS`, which are our names and COCO's.
    """

    def __init__(self, config, model, strategy, annotations, fill, surface=None):
        self.config, self.annotations = config, annotations
        self.strategy, self.fill, self.surface = strategy, fill, surface
        predicted = (True, config.masks, config.keypoints, config.densepose)
        self.kinds = [of for of, is_predicted in zip(KINDS, predicted) if is_predicted]

        def replica(batch):
            found = model.predict(batch["x"], batch["size"])
            found |= {name: batch[name] for name in ("index", "factor")}
            return tf.nest.map_structure(distribute.all_gather, found)

        @tf.function(autograph=False)
        def run(iterator):
            found = strategy.run(replica, (next(iterator),))
            return {name: strategy.experimental_local_results(x)[0] for name, x in found.items()}

        self.run = run

    def score(self, title=None):
        """Predictions and their scores, the same on every process.

        Args:
            title: of a progress bar; None for none.

        Returns:
            `(predictions, scores)`: N dicts as of `coco_scoring`; and a dict from "box" and, with
            these heads, "mask", "keypoint" and "densepose" to what the metric's `score` gives.
        """
        predictions = self.predictions(title)
        config, annotations = self.config, self.annotations
        if config.metric == "voc":
            return predictions, {"box": voc_scoring.score(annotations, predictions)}
        if config.metric == "cityscapes":  # which has no score of boxes
            boxes = coco_scoring.score(annotations, predictions, "bbox")
            masks = cityscapes_scoring.score(annotations, predictions)
            return predictions, {"box": boxes, "mask": masks}
        score = coco_scoring.score_lvis if config.metric == "lvis" else coco_scoring.score
        kinds = [of for of in self.kinds if of != "densepose"]
        scores = {of: score(annotations, predictions, KINDS[of]) for of in kinds}
        if self.surface:
            scores["densepose"] = densepose_scoring.score(annotations, predictions, self.surface)
        return predictions, scores

    def predictions(self, title=None):
        """Of each test image, in order: N dicts as of `coco_scoring`."""
        iterator = iter(self.strategy.distribute_datasets_from_function(self._dataset))
        n = self.annotations.num_examples
        predictions = [None] * n
        starts = range(0, n, self.config.test_batch_size)
        for _ in tqdm(starts, title, unit="batch", disable=title is None):
            found = {name: x.numpy() for name, x in self.run(iterator).items()}
            for row, index in enumerate(found.pop("index")):
                if index >= 0:
                    one = {name: x[row] for name, x in found.items()}
                    predictions[index] = in_the_image(one, *self.annotations.sizes[index])
        return predictions

    def _dataset(self, context):
        data, batch = self.config.data, self.config.test_batch_size
        rows = batch // context.num_input_pipelines
        first = context.input_pipeline_id * rows
        dataset = pipeline.test_dataset(
            self.annotations,
            batch,
            slice(first, first + rows),
            fill=self.fill,
            short_px=data.test_short_px,
            longest_px=data.longest_px,
            pad_px=data.pad_px,
            square_px=data.square_px,
        )
        per_replica = batch // self.strategy.num_replicas_in_sync
        if rows > per_replica:
            dataset = dataset.unbatch().batch(per_replica, drop_remainder=True)
        return dataset.repeat()


def in_the_image(found, height, width):
    """What is predicted for one padded input, in the pixels of its image.

    Args:
        found: dict of arrays, a row of `Detector.predict`, and factor: float 2, px of the input in
            a px of the image, of x and of y.
        height, width: of the image.

    Returns:
        A dict as of `coco_scoring`, of detections only.
    """
    kept, factor = found["label"] >= 0, found["factor"]
    one = {name: found[name][kept] for name in ("boxes", "score", "label")}
    limits = np.array([width, height] * 2, np.float32)
    one["boxes"] = np.clip(one["boxes"] / np.tile(factor, 2), 0, limits)
    if "mask" in found:
        pairs = zip(found["mask"][kept], one["boxes"])
        one["rles"] = [pasted_rle(mask, box, height, width) for mask, box in pairs]
    if "keypoints" in found:
        one["keypoints"] = found["keypoints"][kept] / np.append(factor, np.float32(1))
    if "densepose" in found:
        one["densepose"] = np.round(found["densepose"][kept] * UNITS).astype(np.uint8)
    return one
