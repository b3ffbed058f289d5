"""Image order of detection training, a function of (seed, step), with repeats of rare classes."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from moco_tf.data.random_key import random_key
from moco_tf.data.tfdata import no_autograph
from moco_tf.detection.data.annotations import Annotations

ROUNDING = 0  # draw for an epoch, besides that of its permutation


def repeat_factors(annotations: Annotations, threshold: float) -> np.ndarray:
    """Repeat factors: how often an epoch shows each image, so that rare classes come more often.

    The factor of a class that a share f of the images has is sqrt(threshold / f), at least 1. The
    factor of an image is the highest of its classes.

    Args:
        annotations: `Annotations`, opened for training.
        threshold: share of the images below which a class is repeated; 0 repeats none.

    Returns:
        float64 N, at least 1.

    Source: arXiv:1908.03195, appendix; detectron2/data/samplers/distributed_sampler.py.
    """
    n = annotations.num_examples
    image = np.repeat(np.arange(n), annotations.counts)
    image_and_class = np.unique(np.stack([image, annotations.labels], axis=1), axis=0)
    image, label = image_and_class.T
    share = np.bincount(label, minlength=len(annotations.classes)) / n
    factors = np.ones(n)
    np.maximum.at(factors, image, np.sqrt(threshold / share[label]))
    return factors


def image_order(
    sizes: np.ndarray, factors: np.ndarray, batch: int, seed: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Makes a graph function from a step to the images of its global batch.

    A batch holds only upright or only lying images, unless one orientation has too few. Each epoch
    of an orientation is a new permutation, in which an image comes as often as its factor says. A
    fractional factor is rounded up or down, by a new draw in each epoch.

    All epochs of an orientation are equally long, so that an image's place follows from the step:
    the factors, laid end to end, are cut at all whole numbers plus an offset that is drawn for the
    epoch, and each cut shows the image in which it lies once. (detectron2 rounds each image by
    itself, so that epochs differ in length.) The sum of an orientation's factors is scaled to the
    next whole number.

    Args:
        sizes: int Nx2, heights and widths.
        factors: float64 N, returned by `repeat_factors`.
        batch: B, images of the global batch.
        seed: seed of the run.

    Returns:
        Function from int64 scalar to int64 B, numbers of images.
    """
    height, width = sizes.T
    order = np.argsort(height > width, kind="stable")  # lying and square ones first
    num_lying = int(np.sum(height <= width))
    if min(num_lying, len(order) - num_lying) < batch:
        num_lying = len(order)  # too few of one orientation to fill a batch: mix them
    lying_ends, upright_ends = (_ends(part) for part in np.split(factors[order], [num_lying]))
    lying = int(lying_ends[-1]) if len(lying_ends) else 0  # images in an epoch
    upright = int(upright_ends[-1]) if len(upright_ends) else 0
    total = lying + upright
    with tf.device("CPU"):
        order = tf.constant(order)
        ends = tf.constant(np.concatenate([lying_ends, lying + upright_ends]))
        lengths = tf.constant([lying, upright], tf.int64)

    @no_autograph
    def images(step):
        # Of `total` consecutive steps `lying` are of lying images, evenly spread.
        previous, following = step * lying // total, (step + 1) * lying // total
        is_upright = 1 - (following - previous)
        nth = tf.where(is_upright > 0, step - previous, previous)  # batch of this orientation
        length = lengths[is_upright]

        def image(position):
            epoch = position // length * 2 + is_upright
            key = random_key("image order", seed, epoch)
            place = tf.random.experimental.index_shuffle(position % length, key, length - 1)
            offset = tf.random.stateless_uniform(
                [], random_key("image order", seed, epoch, ROUNDING), alg="philox"
            )
            cut = tf.cast(place + is_upright * lying, tf.float64) + 1 - tf.cast(offset, tf.float64)
            return tf.searchsorted(ends, cut[None], out_type=tf.int64)[0]

        positions = nth * batch + tf.range(batch, dtype=tf.int64)
        return tf.gather(order, tf.map_fn(image, positions))

    return images


def _ends(factors):
    """End of each factor of one orientation, laid end to end and scaled to a whole sum."""
    ends = np.cumsum(factors)
    whole = np.ceil(ends[-1:])
    ends *= whole / ends[-1:]
    ends[-1:] = whole  # it differs from that by rounding only
    return ends
