"""Data for `fit`, `evaluate` and `train_on_batch`: pairs of views in full batches of one size.

BN groups, the shuffle and the queue need to know a batch's rows when the step is compiled, and
Keras' arrays, generators and PyDatasets do not tell them.
"""

import itertools
import types
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from moco_tf.log import log

RULE = "The dataset must yield `(x_q, x_k)`, two batches of views of the same images"


def pair(batch) -> dict:
    """A batch of `fit` as a dict with x_q and x_k.

    Args:
        batch: `(x_q, x_k)`, two batches of views of the same images, NxHxWxc; or a dict of them,
            with more keys if the input pipeline shuffled, see `data.batch`. Keras may have added
            None for the weights, or a tuple around it.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(batch, (tuple, list)):
        parts = [part for part in batch if part is not None]
        if len(parts) == 1 and isinstance(parts[0], (Mapping, tuple, list)):
            return pair(parts[0])
        ranks = {_rank(part) for part in parts}
        if len(parts) != 2 or len(ranks) > 1 or min(ranks) < 2:
            raise ValueError(f"{RULE}. Received: {_shapes(batch)}.{_advice(parts)}")
        batch = {"x_q": parts[0], "x_k": parts[1]}
    if not isinstance(batch, Mapping) or "x_q" not in batch:
        raise ValueError(f"{RULE}, or a dict of them. Received: {_shapes(batch)}.{_advice(())}")
    return dict(batch)


def _rank(x):
    """Number of axes of an array; 0 for anything else."""
    shape = getattr(x, "shape", ())
    return shape.rank if isinstance(shape, tf.TensorShape) else len(shape)


def _shapes(batch):
    """The structure of a batch in words: dtypes and shapes instead of values."""
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {_shapes(part)}" for key, part in batch.items()) + "}"
    if isinstance(batch, (tuple, list)):
        return "(" + ", ".join(map(_shapes, batch)) + ")"
    if not hasattr(batch, "shape"):
        return repr(batch)
    return f"{tf.as_dtype(batch.dtype).name} {tuple(batch.shape)}"


def _advice(parts):
    labelled = " The {} element looks like labels, which MoCo does not use: drop them by `.map({})`"
    if len(parts) == 2 and isinstance(parts[0], (tuple, list)):
        return labelled.format("second", "lambda views, label: views") + "."
    if len(parts) == 2 and _rank(parts[0]) > _rank(parts[1]):
        views = "lambda image, label: (augment(image), augment(image))"
        return labelled.format("second", views) + " before `.batch`, or use `moco_tf.two_views`."
    if len(parts) == 3 and _rank(parts[0]) == _rank(parts[1]):
        return labelled.format("third", "lambda x_q, x_k, label: (x_q, x_k)") + "."
    return " `moco_tf.two_views` makes two views of images."


def with_rows(batch, rows: int | None):
    """A batch whose tensors have a known number of rows, if Keras lost it; None: as it is."""
    if rows is None:
        return batch

    def known(x):
        lost = tf.is_tensor(x) and x.shape.rank and x.shape[0] is None
        return tf.ensure_shape(x, [rows, *x.shape[1:]]) if lost else x

    return tf.nest.map_structure(known, batch)


def full_batches(x, y=None, batch_size=None, shuffle=True):
    """What `fit` trains on: full batches only, whose size is known.

    Args:
        x: `tf.data.Dataset`, PyDataset or generator of batches of two views; or all query views,
            NxHxWxc; or a tuple or dict of arrays.
        y: all key views, if x is an array.
        batch_size: rows of a batch of arrays; None for 32, as in Keras.
        shuffle: whether arrays are shuffled before each epoch.

    Returns:
        `(x, rows)`: data without incomplete batches, and their rows; None if they are not known.
    """
    if isinstance(x, keras.utils.PyDataset):
        return _full_py_dataset(x)
    if isinstance(x, types.GeneratorType):
        return _full_generator(x)
    if is_array_like(x, y):
        size = batch_size or 32
        return _arrays(x if y is None else (x, y), size, shuffle), size
    if getattr(x, "drop_last", False):  # a DataLoader of PyTorch
        return x, x.batch_size
    spec = tf.nest.flatten(getattr(x, "element_spec", None))
    shape = getattr(spec[0], "shape", None)
    return x, shape[0] if shape else None


def is_array_like(x, y=None) -> bool:
    """Whether `fit` was given arrays rather than something that yields batches."""
    return y is not None or isinstance(x, (Mapping, tuple, list, np.ndarray)) or tf.is_tensor(x)


def _arrays(arrays, size, shuffle):
    arrays = pair(tf.nest.map_structure(np.asarray, arrays))
    counts = {name: len(array) for name, array in arrays.items()}
    total = min(counts.values())
    if len(set(counts.values())) > 1:
        raise ValueError(f"x_q and x_k must be views of the same images. Received: rows {counts}.")
    if total < size:
        raise ValueError(
            f"The data must have at least one batch of {size} rows. Received: {total} rows. Set "
            "`batch_size`."
        )
    if total % size:
        log.info("%d of %d rows are left out of each epoch: batches are full.", total % size, total)
    with tf.device("CPU"):
        tensors = {name: tf.constant(array) for name, array in arrays.items()}
    rows = tf.data.Dataset.range(total)
    if shuffle:
        rows = rows.shuffle(total)
    rows = rows.batch(size, drop_remainder=True)

    def gather(i):
        return {name: tf.gather(tensor, i) for name, tensor in tensors.items()}

    return rows.map(gather, tf.data.AUTOTUNE).prefetch(2)


def _rows_of(batch):
    return len(next(iter(pair(batch).values())))


def _full_generator(generator):
    first = next(generator, None)
    if first is None:
        raise ValueError("The generator must yield batches. Received: an empty one.")
    rows = _rows_of(first)

    def full():
        for batch in itertools.chain([first], generator):
            if _rows_of(batch) == rows:
                # Keras takes tuples only.
                yield (batch,) if isinstance(batch, Mapping) else tuple(batch)

    return full(), rows


def _full_py_dataset(batches):
    rows = _rows_of(batches[0])
    total = batches.num_batches
    if total is None or total == 1 or _rows_of(batches[total - 1]) == rows:
        return batches, rows
    return _WithoutLast(batches), rows


class _WithoutLast(keras.utils.PyDataset):
    """The batches of a PyDataset without its last one, which is not full."""

    def __init__(self, batches):
        super().__init__(batches.workers, batches.use_multiprocessing, batches.max_queue_size)
        self.batches = batches

    def __len__(self):
        return self.batches.num_batches - 1

    def __getitem__(self, index):
        return self.batches[index]

    def on_epoch_begin(self):
        self.batches.on_epoch_begin()

    def on_epoch_end(self):
        self.batches.on_epoch_end()
