"""Seeded choices of labelled images: a share of each class, a part that is held out."""

import numpy as np

from moco_tf.data.sources import Source


def balanced(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Chooses a random share of each class' images, at least one each.

    Args:
        labels: int N.
        fraction: share in (0, 1].
        seed: seed of the choice.

    Returns:
        Numbers of the images, int64, ascending.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        chosen.append(rng.permutation(members)[:count])
    return np.sort(np.concatenate(chosen))


def hold_out(source: Source, fraction: float, seed: int) -> tuple[Source, Source]:
    """Splits labelled images into those to train on and a random share of each class.

    Args:
        source: images with labels.
        fraction: share in (0, 1) that is held out; of a class of one image none is.
        seed: seed of the choice.

    Returns:
        `(rest, held_out)`.
    """
    counts = np.bincount(source.labels)
    several = np.flatnonzero(counts[source.labels] > 1)
    chosen = several[balanced(source.labels[several], fraction, seed)]
    rest = np.setdiff1d(np.arange(source.num_examples), chosen)
    return source.subset(rest), source.subset(chosen)
