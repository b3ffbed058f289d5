"""Source "folder:DIR": image files in a folder of any depth; its sub-folders are the classes."""

import os

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.data.sources.listing import EXTENSIONS, list_images
from moco_tf.data.sources.names import Names
from moco_tf.data.sources.source import Source
from moco_tf.log import log

ADDRESSES = ("folder:DIR",)
KEPT_FROM = 100_000  # images; fewer are listed in less than a second


def open(rest: str, index_dir: str | None = None, **_) -> Source:
    """Opens "folder:DIR", local or gs://; labels are the first-level sub-folders.

    Warns of what is skipped, see `listing.list_images`. The names of a large folder are kept in
    `index_dir`, and a run that is started again has the images that it had.

    Raises:
        ValueError: if the folder holds no images.
    """
    root = os.path.expanduser(rest).rstrip("/") or "/"
    kept = index_dir and storage.named_after(index_dir, "folder", root, ".names")
    if kept and tf.io.gfile.exists(kept):
        with tf.io.gfile.GFile(kept, "rb") as file:
            names = file.read().decode(errors="surrogateescape").split("\0")
        log.info("The names of the %d images are read from %s.", len(names), kept)
    else:
        names = _list(root)
        if kept and len(names) >= KEPT_FROM:
            tf.io.gfile.makedirs(index_dir)
            storage.write_bytes(kept, storage.utf8("\0".join(names)))
    classes, labels = _classes(names)
    files = Names(names, root)
    return Source(
        num_examples=len(files),
        read=lambda index: tf.io.read_file(files.paths(index)),
        name=files.tensor,
        encoded=True,
        labels=labels,
        classes=classes,
        files=files,
    )


def _list(root):
    """Names of the images below a folder, sorted."""
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
    start = len(root.rstrip("/")) + 1
    for i, path in enumerate(paths):  # in place: a second list would be as large
        paths[i] = path[start:]
    return paths


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
    if not all("/" in name for name in names):
        return (), None
    classes = sorted({name.partition("/")[0] for name in names})
    number = {name: i for i, name in enumerate(classes)}
    labels = (number[name.partition("/")[0]] for name in names)
    return tuple(classes), np.fromiter(labels, np.int64, len(names))
