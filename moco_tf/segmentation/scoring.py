"""Segmentation scores: confusion matrix, IoU, pixel accuracy, with intervals."""

import warnings

import numpy as np

from moco_tf.segmentation.sources import IGNORED

SAMPLES = 1000  # bootstrap samples of the images, for the intervals


def confusion(label: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrix, pixel counts int64 KxK: row the true class, column the predicted one.

    Args:
        label: int HxW, classes or `IGNORED`.
        predicted: int HxW, classes.
        num_classes: number of classes K.
    """
    counted = label != IGNORED
    pairs = label[counted].astype(np.int64) * num_classes + predicted[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, ...xK; NaN for a class that neither map has."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(axis=-1) + matrix.sum(axis=-2) - hits
    with np.errstate(invalid="ignore"):
        return hits / union


def measure(matrices: np.ndarray, seed: int = 0) -> dict:
    """Scores of several images, each with its 95 % bootstrap interval over the images.

    Args:
        matrices: `confusion` matrix of each image, int64 NxKxK.
        seed: seed of the bootstrap samples.

    Returns:
        Dict of `miou` (mean over the classes that occur) and `pixel_accuracy`, each a dict of value
        and interval [low, high], shares in [0, 1].
    """

    def scores(matrix):
        hits = np.trace(matrix, axis1=-2, axis2=-1)
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # a sample may have no pixel to count
            return np.nanmean(class_iou(matrix), axis=-1), hits / matrix.sum(axis=(-2, -1))

    n = len(matrices)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), SAMPLES)
    resampled = scores(np.einsum("sn,nkl->skl", counts, matrices))
    return {
        name: {
            "value": float(value),
            "interval": [float(x) for x in np.nanpercentile(several, [2.5, 97.5])],
        }
        for name, value, several in zip(
            ("miou", "pixel_accuracy"), scores(matrices.sum(axis=0)), resampled, strict=True
        )
    }


def majority(matrices: np.ndarray) -> tuple[float, int]:
    """The mIoU of predicting the most frequent class everywhere, and that class."""
    counts = matrices.sum(axis=(0, 2))  # true pixels of each class
    best = int(counts.argmax())
    matrix = np.zeros_like(matrices[0])
    matrix[:, best] = counts
    return float(np.nanmean(class_iou(matrix))), best
