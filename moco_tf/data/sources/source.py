"""Data sources with random access: `Source`, and how to make one of arrays.

The input pipelines know an example by its key: its number in a `Source`, its record in a `Stream`.
Both classes have `image`, `label` and `name`, graph functions of that key.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from moco_tf.data import image_ops
from moco_tf.data.sources.names import Chosen


@dataclasses.dataclass(frozen=True)
class Source:
    """Images with random access.

    Attributes:
        num_examples: number of images.
        read: graph function from an int64 scalar (0 <= index < num_examples) to
            the encoded bytes (string scalar), or to a decoded uint8 HxWx3 image.
        name: graph function from the index to a string scalar, for messages.
        encoded: whether `read` gives encoded bytes.
        labels: int64, num_examples; None without labels.
        classes: names of the classes that the labels number, or ().
        files: paths of the images if each is a file, or ().
        decode: graph function from encoded bytes to an image, as `image_ops.decode`.

    Example, images of a list of files:
        paths = tf.constant(sorted(glob.glob("photos/*.jpg")))
        source = Source(
            num_examples=len(paths),
            read=lambda index: tf.io.read_file(paths[index]),
            name=lambda index: paths[index],
            encoded=True,
        )
    """

    num_examples: int
    read: Callable
    name: Callable
    encoded: bool
    labels: np.ndarray | None = None
    classes: tuple = ()
    files: Sequence = ()
    decode: Callable = image_ops.decode

    def image(self, key):
        """The decoded image of a key: uint8 HxWx3."""
        image = self.read(key)
        return self.decode(image) if self.encoded else image

    def label(self, key):
        """The label of a key: int64 scalar, -1 without labels."""
        if self.labels is None:
            return tf.constant(-1, tf.int64)
        with tf.device("CPU"):
            return tf.gather(self._label_tensor, key)

    @functools.cached_property
    def _label_tensor(self):
        # Not a constant of the graph, which would be copied whenever the graph is.
        with tf.init_scope(), tf.device("CPU"):
            return tf.constant(self.labels, tf.int64)

    def keys(self, start: int = 0):
        """Dataset of all keys in order, from number `start` on."""
        return tf.data.Dataset.range(start, self.num_examples)

    def subset(self, indices):
        """A source of some of the images, by their numbers: int array."""
        with tf.device("CPU"):
            chosen = tf.constant(indices, tf.int64)
        return dataclasses.replace(
            self,
            num_examples=len(indices),
            read=lambda index: self.read(tf.gather(chosen, index)),
            name=lambda index: self.name(tf.gather(chosen, index)),
            labels=None if self.labels is None else self.labels[indices],
            files=Chosen(self.files, indices) if self.files else (),
        )

    def relabelled(self, table):
        """The source with label `table[i]` instead of i (int64 array)."""
        return dataclasses.replace(self, labels=table[self.labels])


def from_arrays(images, labels=None, classes=()) -> Source:
    """A source of images in a NumPy array, for scripts and notebooks.

    Args:
        images: uint8 NxHxWx3.
        labels: int N, or None.
        classes: names of the classes that the labels number, or ().

    Raises:
        ValueError: for another type or shape, or another number of labels.

    Example:
        >>> source = from_arrays(np.zeros((100, 32, 32, 3), np.uint8), labels=np.zeros(100, int))
        >>> source.num_examples
        100
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            "`images` must be a uint8 array NxHxWx3. "
            f"Received: {images.dtype} of shape {images.shape}."
        )
    if labels is not None and len(labels) != len(images):
        raise ValueError(
            f"`labels` must be as many as the images, {len(images)}. Received: {len(labels)}."
        )
    with tf.device("CPU"):
        tensor = tf.constant(images)
    return Source(
        num_examples=len(images),
        read=lambda index: tf.gather(tensor, index),
        name=lambda index: tf.strings.as_string(index),
        encoded=False,
        labels=None if labels is None else np.asarray(labels, np.int64),
        classes=tuple(classes),
    )


def from_bytes(encoded: list[bytes], names: list[str], labels=None) -> Source:
    """A source of encoded images in memory.

    Args:
        encoded: contents of image files.
        names: names of the images, for messages.
        labels: int array, or None.
    """
    with tf.device("CPU"):
        encoded, names = tf.constant(encoded), tf.constant(names)
    return Source(
        num_examples=len(encoded),
        read=lambda index: tf.gather(encoded, index),
        name=lambda index: tf.gather(names, index),
        encoded=True,
        labels=None if labels is None else np.asarray(labels, np.int64),
    )


def renumber_labels(source: Source, like: Source) -> Source:
    """Renumbers the labels of a source as in another source, by the names of the classes.

    Args:
        source: `Source` or `Stream`, such as the test images of some of the classes.
        like: `Source` or `Stream` whose numbering to use, such as the training images.

    Returns:
        The source unchanged if one of the two does not name its classes.

    Raises:
        ValueError: for a class of `source` that `like` lacks.
    """
    if not (source.classes and like.classes) or source.classes == like.classes:
        return source
    unknown = sorted(set(source.classes) - set(like.classes))
    if unknown:
        raise ValueError(
            "The test images must have only classes of the training images. Received: "
            f"{', '.join(unknown[:5])}, without training images. Use other sources."
        )
    return source.relabelled(np.array([like.classes.index(name) for name in source.classes]))
