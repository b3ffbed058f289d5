"""CIFAR-10's binary version as a source of `train.py`, and as arrays for the peers.

The folder has data_batch_1.bin to data_batch_5.bin and test_batch.bin of cifar-10-binary.tar.gz, or
the same files compressed by xz.
"""

import lzma
import pathlib

import numpy as np

ADDRESSES = ("cifar_binary:DIR:SPLIT[:COUNT]",)
FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE  # the label, then the planes red, green and blue
RECORDS = 10_000  # in a file


def read(folder, split, count=None):
    """Reads the images of a split.

    Args:
        folder: local folder of the files.
        split: "train" or "test".
        count: number of images from the start of the split; None: all.

    Returns:
        `(images, labels)`: uint8 Nx32x32x3, and int64 N in 0..9.

    Raises:
        ValueError: for another split, or a count that the files do not have.
    """
    if split not in FILES:
        raise ValueError(f"The split must be one of {', '.join(FILES)}. Received: {split!r}.")
    size = None if count is None else count * RECORD_BYTES
    content = b""
    for name in FILES[split]:
        if size is None or len(content) < size:
            content += _content(pathlib.Path(folder) / name)
    rows = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)[:count]
    if count is not None and len(rows) < count:
        raise ValueError(f"{folder} has {len(rows)} images of the split {split}. Received: {count}")
    planes = rows[:, 1:].reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), rows[:, 0].astype(np.int64)


def _content(path):
    packed = path.with_name(f"{path.name}.xz")
    if not path.exists() and packed.exists():
        return lzma.decompress(packed.read_bytes())
    return path.read_bytes()


def unpack(folder, output, train_images):
    """Writes what a benchmark needs as plain files, so that no run pays for xz.

    Args:
        folder: folder of the files, compressed or not.
        output: empty folder.
        train_images: number of training images that are needed.
    """
    needed = FILES["train"][: -(-train_images // RECORDS)] + FILES["test"]
    for name in needed:
        (pathlib.Path(output) / name).write_bytes(_content(pathlib.Path(folder) / name))


def open(rest, **_):
    """Opens "cifar_binary:DIR:SPLIT[:COUNT]", the source of `--config.data.source`."""
    from moco_tf.data import sources

    folder, *parts = rest.split(":")
    if len(parts) not in (1, 2):
        raise ValueError(f"The address must be {ADDRESSES[0]}. Received: 'cifar_binary:{rest}'.")
    return sources.from_arrays(*read(folder, parts[0], *map(int, parts[1:])))
