"""Sources of images by their addresses: "folder:DIR", or "my_module:REST" for one of your own.

A module of this package, or any other that Python can import, is a source if it has:

    ADDRESSES = ("my_module:DIR",)   forms of its addresses, for error messages
    open(rest, **options)            the `Source` or `Stream` of what follows the colon

`options` are `data_dir`, `num_examples` and `index_dir`, as `open_source` gets them; accept and
ignore others.
If its data comes in labelled splits, it may also have `labelled_splits(rest, **options)`: the
addresses of the labelled training and test images that go with it, or None.
"""

import dataclasses
from collections.abc import Callable

from moco_tf import addresses
from moco_tf.data import image_ops, sources
from moco_tf.data.sources.source import Source, from_arrays, from_bytes, renumber_labels
from moco_tf.data.sources.stream import Stream

__all__ = [
    "Source",
    "Stream",
    "from_arrays",
    "from_bytes",
    "labelled_splits",
    "open_source",
    "renumber_labels",
]


def open_source(
    address: str,
    data_dir: str | None = None,
    num_examples: int | None = None,
    field: str = "--config.data.source",
    decode: Callable = image_ops.decode,
    index_dir: str | None = None,
) -> Source | Stream:
    """Opens the source of an address.

    Args:
        address: "tfds:NAME[/CONFIG][:SPLIT]", "folder:DIR", "tfrecord:GLOB",
            "synthetic:fabrics[:SPLIT]", or "my_module:REST" of a module that Python can import.
        data_dir: folder of prepared TFDS data sets; None for TFDS' default.
        num_examples: number of records of a `tfrecord:` source, to spare counting them.
        field: name of the option as it is typed, for errors.
        decode: function from encoded bytes to an image, see `image_ops.decode`.
        index_dir: folder of the run, local or gs://, in which a source keeps what takes long to
            find out, such as the names in a folder, and reads it the next time; None: nowhere.

    Raises:
        ValueError: for an unknown address, or one without data.

    Example:
        >>> source = open_source("synthetic:shapes:test")
        >>> source.num_examples, source.image(0).shape
        (1024, TensorShape([32, 32, 3]))
    """
    module, rest = addresses.module_of(sources, address, field)
    source = module.open(rest, data_dir=data_dir, num_examples=num_examples, index_dir=index_dir)
    return dataclasses.replace(source, decode=decode)


def labelled_splits(address: str, data_dir: str | None = None) -> tuple[str, str] | None:
    """Addresses of the labelled training and test images that go with a source, or None.

    Args:
        address: address of the source, as for `open_source`.
        data_dir: folder of prepared TFDS data sets; None for TFDS' default.
    """
    module, rest = addresses.module_of(sources, address, "--config.data.source")
    if not hasattr(module, "labelled_splits"):
        return None
    return module.labelled_splits(rest, data_dir=data_dir)
