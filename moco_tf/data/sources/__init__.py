"""Sources of images; an address such as "folder:DIR" names one.

A module of this package is a kind of source. It has `ADDRESSES` (the forms for error messages),
`open(rest, **options)` and, where its data may have labels, `labelled_splits(rest)`.
"""

from moco_tf import addresses
from moco_tf.data import sources
from moco_tf.data.sources.source import Source, Stream, from_arrays, from_bytes, in_numbering_of

__all__ = [
    "Source",
    "Stream",
    "from_arrays",
    "from_bytes",
    "in_numbering_of",
    "labelled_splits",
    "open_source",
]


def open_source(address, data_dir=None, num_examples=None):
    """Opens the source of an address.

    Args:
        address: "tfds:NAME[/CONFIG][:SPLIT]", "folder:DIR", "tfrecord:GLOB" or
            "synthetic:shapes[:SPLIT]".
        data_dir: folder of prepared TFDS data sets; None for TFDS' default.
        num_examples: of a `tfrecord:` source, to spare counting its records.

    Returns:
        `Source` or `Stream`.

    Raises:
        ValueError: for an unknown address, or when there is nothing there.
    """
    module, rest = addresses.module_of(sources, address, "data.source")
    return module.open(rest, data_dir=data_dir, num_examples=num_examples)


def labelled_splits(address, data_dir=None):
    """Addresses of the labelled `(bank, queries)` that go with a source, or None."""
    module, rest = addresses.module_of(sources, address, "data.source")
    if not hasattr(module, "labelled_splits"):
        return None
    return module.labelled_splits(rest, data_dir=data_dir)
