"""The labelled images of an evaluation, training and test, and what must hold of them."""

import concurrent.futures
import dataclasses
import hashlib
import os

import numpy as np
import tensorflow as tf

from moco_tf.data import sources
from moco_tf.data.sources import Stream
from moco_tf.log import log


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Two sources whose labels number the same classes.

    Attributes:
        train, test: `datasets.Source` or `Stream`.
        num_classes: of both.
        classes: their names, one each; numbers if they have none.
        addresses: of both, as they were opened.
    """

    train: object
    test: object
    num_classes: int
    classes: tuple
    addresses: tuple


def open_pair(data, run):
    """Opens the training and the test images of an evaluation.

    Args:
        data: `config.Data` of the evaluation.
        run: `Config` of the pre-training run, whose own splits stand in for empty addresses, or
            None.

    Returns:
        `Labelled`.

    Raises:
        ValueError: for images without labels, labels outside the classes, a class without
            images to learn from, or test images that are training images, too.
    """
    addresses = _addresses(data, run)
    data_dir = data.data_dir or (run.data.data_dir if run else None)
    sizes = (data.num_train, data.num_test)
    train, test = (
        sources.open_source(a, data_dir, n) for a, n in zip(addresses, sizes, strict=True)
    )
    num_classes = data.num_classes or _count_classes(train, addresses[0])
    _check_labels(train, addresses[0], num_classes)
    _check_labels(test, addresses[1], len(test.classes) or num_classes)
    test = sources.renumber_labels(test, like=train)
    _check_labels(test, addresses[1], num_classes)
    _check_leak(train, test)
    train = _chosen(train, data, addresses[0], num_classes)
    classes = (*train.classes, *map(str, range(len(train.classes), num_classes)))
    if not isinstance(train, Stream):
        check_classes(train.labels, addresses[0], classes)
    return Labelled(train, test, num_classes, classes, addresses)


def balanced(labels, fraction, seed):
    """Numbers of a share of each class' images, at least one each: int64 array, ascending."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(of_class)))
        chosen.append(rng.permutation(of_class)[:count])
    return np.sort(np.concatenate(chosen))


def _addresses(data, run):
    if bool(data.train) != bool(data.test):
        raise ValueError(
            "`--config.data.train` and `--config.data.test` must be given together, or neither. "
            f"Received: train={data.train!r}, test={data.test!r}."
        )
    if data.train:
        return data.train, data.test
    splits = None
    if run:
        data_dir = data.data_dir or run.data.data_dir
        splits = sources.labelled_splits(run.data.source, data_dir)
    if not splits:
        raise ValueError(
            "The images to evaluate on must be named by `--config.data.train` and "
            "`--config.data.test`: "
            + (f"{run.data.source} has no labelled splits." if run else "the checkpoint is a file.")
        )
    return splits


def _count_classes(train, address):
    if train.classes:
        return len(train.classes)
    if not isinstance(train, Stream) and train.labels is not None:
        return int(train.labels.max()) + 1
    raise ValueError(
        "Evaluation needs labels, and to know how many classes there are: sub-folders for folder:, "
        "a label feature for tfds:, image/class/label and `--config.data.num_classes` for "
        f"tfrecord:. Received: {address!r}."
    )


def _check_labels(source, address, num_classes):
    if isinstance(source, Stream):
        return  # known when they are read: by `check_read` or the training pipeline
    if source.labels is None:
        raise ValueError(
            f"Evaluation needs labelled images. Received: {address!r}, without labels."
        )
    check_read(source.labels, address, num_classes)


def check_read(labels, address, num_classes):
    """Raises ValueError for labels outside [0, num_classes)."""
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if len(outside):
        raise ValueError(
            f"Labels must be in 0..{num_classes - 1}. Received: {outside[0]} and "
            f"{len(outside) - 1} more outside, in {address!r}. "
            "Is `--config.data.num_classes` right?"
        )


def check_classes(labels, address, classes):
    """Raises ValueError for a class without training images."""
    empty = sorted(set(range(len(classes))) - set(labels.tolist()))
    if empty:
        raise ValueError(
            "Every class must have an image to learn from. Received: none for "
            f"{', '.join(classes[i] for i in empty[:5])} ({len(empty)} of {len(classes)} classes) "
            f"in {address!r}."
        )


def _check_leak(train, test):
    """Raises ValueError if files of both have the same content."""
    if not (getattr(train, "files", ()) and getattr(test, "files", ())):
        return
    with concurrent.futures.ThreadPoolExecutor(32) as pool:  # remote files are waited for
        train_sizes, test_sizes = (list(pool.map(_size, s.files)) for s in (train, test))
        # Files of sizes that only one of the two has need not be read.
        common = set(train_sizes) & set(test_sizes)
        train_files = [
            p for p, size in zip(train.files, train_sizes, strict=True) if size in common
        ]
        test_files = [p for p, size in zip(test.files, test_sizes, strict=True) if size in common]
        digests = dict(zip(pool.map(_hash, train_files), train_files, strict=True))
        hashed = zip(test_files, pool.map(_hash, test_files), strict=True)
        leaked = [(path, digests[digest]) for path, digest in hashed if digest in digests]
    if leaked:
        raise ValueError(
            f"No test image may be a training image. Received: {len(leaked)} with the content of "
            f"one, such as {leaked[0][0]} and {leaked[0][1]}. Take them out of one of the two."
        )


def _size(path):
    return tf.io.gfile.stat(path).length


def _hash(path):
    with tf.io.gfile.GFile(path, "rb") as file:
        return hashlib.sha256(file.read()).digest()


def _chosen(train, data, address, num_classes):
    """The training images that `data.fraction` or `data.names` leaves."""
    if data.fraction == 1 and not data.names:
        return train
    if isinstance(train, Stream):
        raise ValueError(
            "A part of the images can be chosen of sources with random access. Received: "
            f"{address!r}. tfds:imagenet2012_subset/1pct and /10pct are SimCLR's parts of ImageNet."
        )
    if data.names:
        chosen = _named(train, data.names)
    else:
        chosen = balanced(train.labels, data.fraction, data.subset_seed)
    log.info("Training on %d of %d images.", len(chosen), train.num_examples)
    return train.subset(chosen)


def _named(train, path):
    """Numbers of the images whose names, with or without folders, a file lists."""
    with tf.io.gfile.GFile(path) as file:
        wanted = {line.strip() for line in file.read().splitlines() if line.strip()}
    names = [name.decode() for name in train.keys().map(train.name).as_numpy_iterator()]
    chosen = [i for i, n in enumerate(names) if n in wanted or os.path.basename(n) in wanted]
    known = {names[i] for i in chosen} | {os.path.basename(names[i]) for i in chosen}
    if missing := sorted(wanted - known):
        raise ValueError(
            f"All names in {path!r} must be of training images. Received besides: "
            f"{', '.join(missing[:3])} ({len(missing)} of {len(wanted)}). The images have names "
            f"such as {names[0]}."
        )
    return np.array(chosen)
