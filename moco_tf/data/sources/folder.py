"""Source "folder:DIR": image files in a folder of any depth; its sub-folders are the classes."""

import os

import numpy as np
import tensorflow as tf

from moco_tf.data.sources.listing import EXTENSIONS, list_images
from moco_tf.data.sources.source import Source
from moco_tf.log import log

ADDRESSES = ("folder:DIR",)


def open(rest: str, **_) -> Source:
    """Opens "folder:DIR", local or gs://; labels are the first-level sub-folders.

    Warns of what is skipped, see `listing.list_images`.

    Raises:
        ValueError: if the folder holds no images.
    """
    root = os.path.expanduser(rest)
    listing = list_images(root)
    paths, skipped = listing.paths, listing.skipped()
    if not paths:
        reason = "which holds none" if tf.io.gfile.isdir(root) else "which does not exist"
        raise ValueError(
            f"`folder:DIR` must hold images ({', '.join(EXTENSIONS)}). Received: {root!r}, "
            f"{reason}. {f'Skipped: {skipped}.' if skipped else ''}".rstrip()
        )
    if skipped:
        log.warning("Skipped in %s: %s.", root, skipped)
    if listing.empty_folders():
        log.warning(
            "No images in %s, so %s no class. Convert the files to JPEG or PNG if they are images.",
            ", ".join(listing.empty_folders()),
            "it is" if len(listing.empty_folders()) == 1 else "they are",
        )
    names = [os.path.relpath(p, root) for p in paths]
    classes, labels = _classes(names)
    with tf.device("CPU"):
        path_tensor = tf.constant(paths)
        name_tensor = tf.constant(names)
    return Source(
        num_examples=len(paths),
        read=lambda index: tf.io.read_file(tf.gather(path_tensor, index)),
        name=lambda index: tf.gather(name_tensor, index),
        encoded=True,
        labels=labels,
        classes=classes,
        files=tuple(paths),
    )


def labelled_splits(rest: str, **_) -> tuple[str, str] | None:
    """DIR/train and DIR/val or DIR/test, if `rest` is DIR/train and the other exists."""
    root = os.path.dirname(os.path.expanduser(rest.rstrip("/")))
    for held_out in ("val", "test"):
        bank, queries = os.path.join(root, "train"), os.path.join(root, held_out)
        if os.path.basename(rest.rstrip("/")) == "train" and tf.io.gfile.isdir(queries):
            return f"folder:{bank}", f"folder:{queries}"
    return None


def _classes(names):
    """Names of the classes and the label of each image; none if an image is in no sub-folder."""
    folders = [name.split(os.sep)[0] if os.sep in name else None for name in names]
    if None in folders:
        return (), None
    classes, labels = np.unique(folders, return_inverse=True)
    return tuple(classes.tolist()), labels.astype(np.int64)
