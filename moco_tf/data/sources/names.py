"""Names of many files in little memory: their bytes, and four more for each."""

from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from moco_tf import storage

BLOCK = 64  # names in a string
CHUNK = 4096  # names that are looked up at a time


class Names(Sequence):
    """A sequence of paths below a folder, which graph functions can read, too.

    A tensor of as many strings takes 24 bytes for each beside those of long strings, and Python's
    strings take 50 and more.

    Args:
        names: paths relative to the folder.
        root: the folder; "" for names that are not below one.

    Example:
        >>> names = Names(["cat/1.png", "dog/2.png"], root="photos")
        >>> names[1], names.tensor(0).numpy()
        ('photos/dog/2.png', b'cat/1.png')
    """

    def __init__(self, names: Iterable[str], root: str = ""):
        self._prefix = root.rstrip("/") + "/" if root else ""
        blocks, block, ends = [], [], []
        length = 0
        for name in names:
            encoded = storage.utf8(name)
            block.append(encoded)
            length += len(encoded)
            ends.append(length)
            if len(block) == BLOCK:
                blocks.append((b"".join(block), ends))
                block, ends, length = [], [], 0
        if block:
            blocks.append((b"".join(block), ends))
        lengths = [np.array(ends, np.int32) for _, ends in blocks]
        with tf.init_scope(), tf.device("CPU"):
            self._blocks = tf.constant([text for text, _ in blocks], tf.string)
            self._ends = tf.constant(np.concatenate(lengths) if lengths else [], tf.int32)
        self._num = int(self._ends.shape[0])

    def __len__(self):
        return self._num

    def __getitem__(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.at([index % len(self)])[0]

    def __iter__(self):
        ends = self._ends.numpy()
        for number, block in enumerate(self._blocks.numpy()):
            start = 0
            for end in ends[number * BLOCK : (number + 1) * BLOCK].tolist():
                yield self._prefix + block[start:end].decode(errors="surrogateescape")
                start = end

    def at(self, numbers: np.ndarray) -> list[str]:
        """The paths of some numbers."""
        names = self.tensor(numbers).numpy()
        return [self._prefix + name.decode(errors="surrogateescape") for name in names]

    def tensor(self, index) -> tf.Tensor:
        """The names, without the folder, of some numbers: strings like `index`, int64."""
        index = tf.convert_to_tensor(index, tf.int64)
        end = tf.gather(self._ends, index)
        start = tf.gather(self._ends, tf.maximum(index - 1, 0))
        start = tf.where(index % BLOCK == 0, 0, start)
        return tf.strings.substr(tf.gather(self._blocks, index // BLOCK), start, end - start)

    def paths(self, index) -> tf.Tensor:
        """The paths of some numbers: strings like `index`, int64."""
        return tf.strings.join([self._prefix, self.tensor(index)])


class Chosen(Sequence):
    """Some of the items of a sequence, by their numbers: int array."""

    def __init__(self, items: Sequence, numbers: np.ndarray):
        self._items, self._numbers = items, np.asarray(numbers)

    def __len__(self):
        return len(self._numbers)

    def __getitem__(self, index):
        return self._items[int(self._numbers[index])]

    def __iter__(self):
        for start in range(0, len(self), CHUNK):
            yield from self.at(range(start, min(start + CHUNK, len(self))))

    def at(self, numbers) -> list:
        """The items of some numbers."""
        chosen = self._numbers[np.asarray(numbers)]
        if hasattr(self._items, "at"):
            return self._items.at(chosen)
        return [self._items[int(i)] for i in chosen]
