"""How well label maps agree: one exact confusion matrix, and what follows from it."""

import warnings

import numpy as np

from moco_tf.segmentation.sources import IGNORED

SAMPLES = 1000  # of the images, for the intervals


def confusion(label, predicted, num_classes):
    """Counts of pixels, int64 KxK: row the true class, column the predicted one.

    Args:
        label: int HxW, classes or `IGNORED`.
        predicted: int HxW, classes.
        num_classes: K.
    """
    counted = label != IGNORED
    pairs = label[counted].astype(np.int64) * num_classes + predicted[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(matrix):
    """Intersection over union of each class, ...xK; NaN for one that neither map has."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(axis=-1) + matrix.sum(axis=-2) - hits
    with np.errstate(invalid="ignore"):
        return hits / union


def measure(matrices, seed=0):
    """Scores of several images, each with its 95 % interval over resamples of the images.

    Args:
        matrices: int64 NxKxK, a `confusion` an image.
        seed: of the resamples.

    Returns:
        Dict of `miou` (mean over the classes that occur) and `pixel_accuracy`, each a dict of value
        and interval [low, high], shares in [0, 1].
    """

    def scores(matrix):
        hits = np.trace(matrix, axis1=-2, axis2=-1)
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)  # a resample may be all ignored
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


def majority(matrices):
    """The mIoU of always answering the class with the most pixels, and that class."""
    counts = matrices.sum(axis=(0, 2))  # true pixels of each class
    best = int(counts.argmax())
    matrix = np.zeros_like(matrices[0])
    matrix[:, best] = counts
    return float(np.nanmean(class_iou(matrix))), best
