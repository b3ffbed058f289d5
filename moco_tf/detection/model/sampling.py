"""Which images a step trains on: a function of the seed and the step, also of repeated images."""

import numpy as np
import tensorflow as tf

from moco_tf.data.random_key import random_key
from moco_tf.data.tfdata import plain

ROUNDING = 0  # draw for an epoch, besides that of its permutation


def repeat_factors(annotations, threshold):
    """How often an epoch has each image, so that rare classes are seen more often.

    Of a class that a share f of the images has it is sqrt(threshold / f), at least 1; of an image
    the highest of its classes.

    Args:
        annotations: `records.Annotations`, for training.
        threshold: share of the images; 0 repeats none.

    Returns:
        float64 N, at least 1.

    Source: arXiv:1908.03195, appendix; detectron2/data/samplers/distributed_sampler.py.
    """
    n = annotations.num_examples
    image = np.repeat(np.arange(n), annotations.counts)
    pairs = np.unique(np.stack([image, annotations.labels], axis=1), axis=0)  # an image, a class
    share = np.bincount(pairs[:, 1], minlength=len(annotations.classes)) / n
    factors = np.ones(n)
    np.maximum.at(factors, pairs[:, 0], np.sqrt(threshold / share[pairs[:, 1]]))
    return factors


def image_order(sizes, factors, batch, seed):
    """Makes a graph function from a step to the images of its global batch.

    A batch has upright or lying images only, unless there are too few of a kind. Each epoch of
    either kind is a new permutation, in which an image comes as often as its factor says; one with
    a fraction is rounded up or down, anew in each epoch.

    All epochs of a kind are equally long, so that slot and epoch follow from the step: the factors,
    laid end to end, are cut at all whole numbers plus an offset, drawn for the epoch, and each cut
    is once the image in which it lies. (detectron2 rounds each image by itself, so that an epoch
    may be longer or shorter.) The sum of a kind's factors is brought to the next whole number.

    Args:
        sizes: int Nx2, heights and widths.
        factors: float64 N, of `repeat_factors`.
        batch: B.
        seed: int, of the run.

    Returns:
        Function from int64 scalar to int64 B, numbers of images.
    """
    height, width = sizes.T
    order = np.argsort(height > width, kind="stable")  # lying and square ones first
    lying = int(np.sum(height <= width))
    if min(lying, len(order) - lying) < batch:
        lying = len(order)  # too few of a kind to fill a batch: they are not kept apart
    ends = [_ends(part) for part in np.split(factors[order], [lying])]
    first, second = (int(part[-1]) if len(part) else 0 for part in ends)  # slots of an epoch
    total = first + second
    with tf.device("CPU"):
        order, ends = tf.constant(order), tf.constant(np.concatenate([ends[0], first + ends[1]]))
        kinds = tf.constant([first, second], tf.int64)

    @plain
    def images(step):
        # Of `total` consecutive steps `first` are of lying images, evenly spread.
        before, after = step * first // total, (step + 1) * first // total
        upright = 1 - (after - before)
        nth = tf.where(upright > 0, step - before, before)
        length = kinds[upright]

        def image(slot):
            epoch = slot // length * 2 + upright
            key = random_key("image order", seed, epoch)
            place = tf.random.experimental.index_shuffle(slot % length, key, length - 1)
            offset = tf.random.stateless_uniform(
                [], random_key("image order", seed, epoch, ROUNDING), alg="philox"
            )
            cut = tf.cast(place + upright * first, tf.float64) + 1 - tf.cast(offset, tf.float64)
            return tf.searchsorted(ends, cut[None], out_type=tf.int64)[0]

        slots = nth * batch + tf.range(batch, dtype=tf.int64)
        return tf.gather(order, tf.map_fn(image, slots))

    return images


def _ends(factors):
    """Where the factors of one kind end, laid end to end and brought to a whole sum."""
    ends = np.cumsum(factors)
    whole = np.ceil(ends[-1:])
    ends *= whole / ends[-1:]
    ends[-1:] = whole  # but for rounding it is that
    return ends
