"""Source "folder:DIR": image files in a folder of any depth; its sub-folders are the classes."""

import os

import numpy as np
import tensorflow as tf

from moco_tf.data.sources.source import Source

ADDRESSES = ("folder:DIR",)
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def open(rest: str, **_) -> Source:
    """Opens "folder:DIR", local or gs://; labels are the first-level sub-folders.

    Raises:
        ValueError: if the folder holds no images.
    """
    root = os.path.expanduser(rest)
    paths = _list(root)
    if not paths:
        raise ValueError(
            f"`folder:DIR` must hold images ({', '.join(EXTENSIONS)}). Received: {root!r}, "
            + ("which holds none." if tf.io.gfile.isdir(root) else "which does not exist.")
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


def _list(root):
    """Paths of all images below a folder, sorted."""
    paths = []
    for folder, _, files in tf.io.gfile.walk(root):
        paths += [os.path.join(folder, f) for f in files if f.lower().endswith(EXTENSIONS)]
    return sorted(paths)


def _classes(names):
    """Names of the classes and the label of each image; no labels unless there are two classes."""
    folders = [name.split(os.sep)[0] if os.sep in name else None for name in names]
    if None in folders or len(set(folders)) < 2:
        return (), None
    classes, labels = np.unique(folders, return_inverse=True)
    return tuple(classes.tolist()), labels.astype(np.int64)
