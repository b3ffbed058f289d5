"""Testing of a detector: predictions for all test images, in their pixels, and scores."""

import numpy as np

from moco_tf import distribute
from moco_tf.detection.data import pipeline
from moco_tf.detection.data.masks import pasted_rle
from moco_tf.detection.scoring import cityscapes as cityscapes_scoring
from moco_tf.detection.scoring import coco as coco_scoring
from moco_tf.detection.scoring import densepose as densepose_scoring
from moco_tf.detection.scoring import pck
from moco_tf.detection.scoring import voc as voc_scoring

# Outputs of a detector, and their `iouType` in COCO's evaluation.
IOU_TYPES = {"box": "bbox", "mask": "segm", "keypoint": "keypoints", "densepose": "densepose"}
UNITS = np.array([1, 255, 255], np.float32)  # factors of part, U and V as uint8


class Tester:
    """Predicts whole test images and scores the predictions.

    Args:
        config: `Detection`.
        model: `Detector`.
        strategy: strategy of the model.
        annotations: `Annotations`, opened for testing.
        fill: color of the padding, uint8 3.
        surface: `densepose_surface.Surface`; without it DensePose gets no score.

    Attributes:
        outputs: predicted outputs, keys of `IOU_TYPES`.
    """

    def __init__(self, config, model, strategy, annotations, fill, surface=None):
        self.config = config
        self.annotations = annotations
        self.fill = fill
        self.surface = surface
        is_predicted = {
            "box": True,
            "mask": config.masks,
            "keypoint": config.keypoints,
            "densepose": config.densepose,
        }
        self.outputs = [name for name in IOU_TYPES if is_predicted[name]]

        def predict(batch):
            detections = model.predict(batch["x"], batch["size"])
            return detections | {"index": batch["index"], "factor": batch["factor"]}

        self._predict_all = distribute.make_predict_all(strategy, predict)

    def score(self, title=None):
        """Predictions and their scores, the same on every process.

        Args:
            title: title of the progress bar; None shows none.

        Returns:
            Predictions, N dicts as in scoring/coco.py; and a dict from each of `outputs` to its
            scores, as returned by the metric's `score`.
        """
        predictions = self.predictions(title)
        config, annotations = self.config, self.annotations
        if config.metric == "voc":
            return predictions, {"box": voc_scoring.score(annotations, predictions)}
        if config.metric == "cityscapes":  # Cityscapes has no score of boxes
            boxes = coco_scoring.score(annotations, predictions, "bbox")
            masks = cityscapes_scoring.score(annotations, predictions)
            return predictions, {"box": boxes, "mask": masks}
        score = coco_scoring.score_lvis if config.metric == "lvis" else coco_scoring.score
        scores = {
            name: score(annotations, predictions, IOU_TYPES[name])
            for name in self.outputs
            if name != "densepose" and (name != "keypoint" or annotations.sigmas is not None)
        }
        if "keypoint" in self.outputs and annotations.sigmas is None:
            scores["keypoint"] = pck.score(annotations, predictions)
        if self.surface:
            scores["densepose"] = densepose_scoring.score(annotations, predictions, self.surface)
        return predictions, scores

    def predictions(self, title=None):
        """Predictions for each test image, in order: N dicts as in scoring/coco.py."""
        n = self.annotations.num_examples
        predictions = [None] * n
        batches = self._predict_all(self._dataset, n, self.config.test_batch_size, title)
        for _, outputs in batches:
            for row, index in enumerate(outputs.pop("index")):
                detections = {name: x[row] for name, x in outputs.items()}
                predictions[index] = in_image(detections, *self.annotations.sizes[index])
        return predictions

    def _dataset(self, batch_size, rows):
        data = self.config.data
        return pipeline.test_dataset(
            self.annotations,
            batch_size,
            rows,
            fill=self.fill,
            short_px=data.test_short_px,
            longest_px=data.longest_px,
            pad_px=data.pad_px,
            square_px=data.square_px,
        )


def in_image(detections: dict[str, np.ndarray], height: int, width: int) -> dict:
    """Converts predictions for one padded input to the pixels of its image.

    Args:
        detections: one row of `Detector.predict`, and factor: float 2, px of the input in a px of
            the image, along x and y.
        height: height of the image, px.
        width: width of the image, px.

    Returns:
        A dict as in scoring/coco.py, without the empty rows.
    """
    is_valid = detections["label"] >= 0
    factor = detections["factor"]
    result = {name: detections[name][is_valid] for name in ("boxes", "score", "label")}
    limits = np.array([width, height] * 2, np.float32)
    result["boxes"] = np.clip(result["boxes"] / np.tile(factor, 2), 0, limits)
    if "mask" in detections:
        masks = detections["mask"][is_valid]
        result["rles"] = [
            pasted_rle(mask, box, height, width)
            for mask, box in zip(masks, result["boxes"], strict=True)
        ]
    if "keypoints" in detections:
        result["keypoints"] = detections["keypoints"][is_valid] / np.append(factor, np.float32(1))
    if "densepose" in detections:
        surface = detections["densepose"][is_valid]
        result["densepose"] = np.round(surface * UNITS).astype(np.uint8)
    return result
