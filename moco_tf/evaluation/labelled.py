"""Labelled training and test images of an evaluation: opening and checks."""

import concurrent.futures
import dataclasses
import hashlib
import os

import numpy as np
import tensorflow as tf

from moco_tf.data import image_ops, sources
from moco_tf.data.sources import Source, Stream
from moco_tf.data.split import balanced, hold_out
from moco_tf.evaluation import config as configs
from moco_tf.log import log
from moco_tf.pretraining.config import Config
from moco_tf.probes import monitor

TESTED = 0.2  # share of each class that is tested where only training images are named


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Training and test images with the same classes.

    Attributes:
        train: training images.
        test: test images.
        num_classes: number of classes.
        classes: names of the classes, or their numbers as text.
        addresses: addresses of the training and the test images.
    """

    train: Source | Stream
    test: Source | Stream
    num_classes: int
    classes: tuple
    addresses: tuple


def open_pair(data: configs.Data, run: Config | None, index_dir: str | None = None) -> Labelled:
    """Opens the training and the test images of an evaluation.

    Args:
        data: data fields of the evaluation's config.
        run: config of the pre-training run, or None. Without addresses in `data`, the images are
            its splits or its monitor's sources. If it has neither, they are its labelled images:
            the tenth that its monitor classifies is tested, see `monitor.hold_out`.
        index_dir: folder in which sources keep what takes long to find out, see
            `sources.open_source`.

    Raises:
        ValueError: for images without labels, labels outside the classes, a class without
            training images, or test images that are also training images.
    """
    train, test, addresses = _open(data, run, index_dir)
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


def _open(data, run, index_dir):
    """Training and test images, and their addresses."""
    data_dir = data.data_dir or (run.data.data_dir if run else None)
    decode = run.data.decode if run else image_ops.decode
    addresses = _addresses(data, run, data_dir)
    if data.train and addresses is None:
        source = sources.open_source(
            data.train, data_dir, data.num_train, "--config.data.train", decode, index_dir
        )
        return _split(source, data)
    if addresses:
        sizes = (data.num_train, data.num_test)
        opened = (
            sources.open_source(address, data_dir, size, f"--config.data.{name}", decode, index_dir)
            for name, address, size in zip(("train", "test"), addresses, sizes, strict=True)
        )
        return *opened, addresses
    if run:
        source = sources.open_source(
            run.data.source, data_dir, data.num_train, decode=decode, index_dir=index_dir
        )
        train, test = monitor.hold_out(run, source)
        if test:
            log.info("The test images are the tenth of each class that the run held out.")
            addresses = f"{run.data.source}, nine tenths", f"{run.data.source}, the held-out tenth"
            return train, _without_copies(train, test), addresses
    raise ValueError(
        "`--config.data.train` and `--config.data.test` must be given, because "
        + (f"{run.data.source} has no labelled splits." if run else "the checkpoint is a file.")
    )


def _split(source, data):
    """Some labelled images as training and test images: a seeded fifth of each class is tested."""
    if isinstance(source, Stream) or source.labels is None:
        raise ValueError(
            "`--config.data.test` must be given, because only labelled images with random access "
            f"can be split. Received: train={data.train!r}."
        )
    train, test = hold_out(source, TESTED, data.subset_seed)
    log.info(
        "%d of %d images, a fifth of each class, are the test images; --config.data.test names "
        "others.",
        test.num_examples,
        source.num_examples,
    )
    addresses = f"{data.train}, four fifths", f"{data.train}, the other fifth"
    return train, _without_copies(train, test), addresses


def _addresses(data, run, data_dir):
    """Addresses of the training and the test images; None if neither config names them."""
    if data.test and not data.train:
        raise ValueError(
            "`--config.data.test` must be given together with `--config.data.train`. "
            f"Received: train={data.train!r}, test={data.test!r}."
        )
    if data.train and data.test:
        return data.train, data.test
    if data.train:
        return sources.labelled_splits(data.train, data_dir)
    if run and "," in run.monitor.source:
        return tuple(run.monitor.source.split(","))
    return sources.labelled_splits(run.data.source, data_dir) if run else None


def _count_classes(train, address):
    if len(train.classes) == 1:
        raise ValueError(
            "Evaluation needs training images of two classes or more, a sub-folder each. Received: "
            f"one class, {train.classes[0]}, in {address!r}."
        )
    if train.classes:
        return len(train.classes)
    if not isinstance(train, Stream) and train.labels is not None:
        return int(train.labels.max()) + 1
    raise ValueError(
        "Evaluation needs labels and the number of classes: sub-folders for folder:, a label "
        "feature for tfds:, image/class/label for tfrecord:, with a manifest by `convert` or "
        "`--config.data.num_classes`. "
        f"Received: {address!r}."
    )


def _check_labels(source, address, num_classes):
    if isinstance(source, Stream):
        return  # labels are checked when they are read, by `check_read` or the training pipeline
    if source.labels is None:
        raise ValueError(
            f"Evaluation needs labelled images. Received: {address!r}, without labels."
        )
    check_read(source.labels, address, num_classes)


def check_read(labels: np.ndarray, address: str, num_classes: int):
    """Raises ValueError for labels outside [0, num_classes)."""
    invalid = labels[(labels < 0) | (labels >= num_classes)]
    if len(invalid):
        raise ValueError(
            f"Labels must be in 0..{num_classes - 1}. Received: {invalid[0]} and "
            f"{len(invalid) - 1} more outside, in {address!r}. "
            "Is `--config.data.num_classes` right?"
        )


def check_classes(labels: np.ndarray, address: str, classes: tuple[str, ...]):
    """Raises ValueError for a class without training images."""
    empty = sorted(set(range(len(classes))) - set(labels.tolist()))
    if empty:
        raise ValueError(
            "Every class must have a training image. Received: none for "
            f"{', '.join(classes[i] for i in empty[:5])} ({len(empty)} of {len(classes)} classes) "
            f"in {address!r}."
        )


def _check_leak(train, test):
    """Raises ValueError if files of both have the same content."""
    leaked = _leaked(train, test)
    if leaked:
        raise ValueError(
            f"No test image may be a training image. Received: {len(leaked)} with the same "
            f"content, such as {leaked[0][0]} and {leaked[0][1]}. Remove them from one of the two."
        )


def _without_copies(train, test):
    """The test images that are no copies of training images, which one folder may well hold."""
    copies = {path for path, _ in _leaked(train, test)}
    if not copies:
        return test
    log.info("%d test images are copies of training images, and left out.", len(copies))
    return test.subset([i for i, path in enumerate(test.files) if path not in copies])


def _leaked(train, test):
    """Paths of test files, each with the path of a training file of the same content."""
    if not (getattr(train, "files", ()) and getattr(test, "files", ())):
        return []
    with concurrent.futures.ThreadPoolExecutor(32) as pool:  # to wait for many remote files at once
        train_sizes, test_sizes = (list(pool.map(_size, s.files)) for s in (train, test))
        # Only files of sizes that occur in both can be equal, so only these are read.
        common = set(train_sizes) & set(test_sizes)
        train_files = [
            p for p, size in zip(train.files, train_sizes, strict=True) if size in common
        ]
        test_files = [p for p, size in zip(test.files, test_sizes, strict=True) if size in common]
        digests = dict(zip(pool.map(_hash, train_files), train_files, strict=True))
        hashed = zip(test_files, pool.map(_hash, test_files), strict=True)
        return [(path, digests[digest]) for path, digest in hashed if digest in digests]


def _size(path):
    return tf.io.gfile.stat(path).length


def _hash(path):
    with tf.io.gfile.GFile(path, "rb") as file:
        return hashlib.sha256(file.read()).digest()


def _chosen(train, data, address, num_classes):
    """The training images that `data.fraction` or `data.names` selects."""
    if data.fraction == 1 and not data.names:
        return train
    if isinstance(train, Stream):
        raise ValueError(
            "`--config.data.fraction` and `--config.data.names` need a source with random access. "
            f"Received: {address!r}. For ImageNet, use SimCLR's tfds:imagenet2012_subset/1pct or "
            "/10pct."
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
            f"All names in {path!r} must be of training images. Received other names: "
            f"{', '.join(missing[:3])} ({len(missing)} of {len(wanted)}). The images have names "
            f"such as {names[0]}."
        )
    return np.array(chosen)
