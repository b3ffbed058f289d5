"""Source "csv:FILE": image files that a table lists, each with its label."""

import csv
import os

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.data.sources.source import Source

ADDRESSES = ("csv:FILE",)
HEADERS = (
    "file",
    "filename",
    "image",
    "name",
    "path",
)  # of a first column: then line 1 is no image


def open(rest: str, **_) -> Source:
    """Opens "csv:FILE", local or gs://.

    Each line is the path of an image, relative to the table's folder, and its label, any text. A
    first line such as "file,label" is left out; further columns are ignored.

    Raises:
        ValueError: for a file that does not exist, or a line without a label.
    """
    path = os.path.expanduser(rest)
    if not tf.io.gfile.exists(path):
        raise ValueError(f"`csv:FILE` must be a file. Received: {path!r}, which does not exist.")
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"`csv:FILE` must be in UTF-8. Received: {path!r}, which is not ({error}). Save it as "
            "UTF-8."
        ) from error
    lines = csv.reader(text.splitlines())
    rows = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if any(row)]
    if rows and rows[0][1][0].lower() in HEADERS:
        rows = rows[1:]
    for number, row in rows:
        if len(row) < 2 or not all(row[:2]):
            raise ValueError(
                "Each line of a table must have a file and a label, FILE,LABEL. Received: "
                f"{','.join(row)!r} in line {number} of {path}."
            )
    if not rows:
        raise ValueError(f"`csv:FILE` must list images. Received: {path!r}, which lists none.")
    names = [row[0] for _, row in rows]
    paths = [os.path.join(os.path.dirname(path), name) for name in names]
    missing = [
        name for name, file in zip(names, paths, strict=True) if not tf.io.gfile.exists(file)
    ]
    if missing:
        raise ValueError(
            "The files of a table must exist, in its folder or by their whole paths. Received: "
            f"{', '.join(missing[:3])} ({len(missing)} of {len(names)}), in {path}."
        )
    classes, labels = np.unique([row[1] for _, row in rows], return_inverse=True)
    with tf.device("CPU"):
        path_tensor = tf.constant(paths)
        name_tensor = tf.constant(names)
    return Source(
        num_examples=len(paths),
        read=lambda index: tf.io.read_file(tf.gather(path_tensor, index)),
        name=lambda index: tf.gather(name_tensor, index),
        encoded=True,
        labels=labels.astype(np.int64),
        classes=tuple(classes.tolist()),
        files=tuple(paths),
    )
