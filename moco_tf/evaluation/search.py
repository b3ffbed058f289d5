"""Groups of near-duplicates by the vectors of a file of embeddings, and pictures for pages."""

import base64
import html
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from scipy.sparse import coo_array, csgraph

from moco_tf import storage
from moco_tf.data import image_ops

SIDE_PX = 144  # of the pictures in a page
BLOCK = 2048  # images compared with all others at a time


def groups(vectors: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Groups of near-duplicates: rows that pairs above a similarity connect, the largest first.

    Args:
        vectors: float32 NxC of unit length.
        threshold: least cosine of a pair.

    Returns:
        Numbers of the rows of each group of two or more.

    Example:
        >>> x = np.float32([[1, 0], [0, 1], [1, 0]])
        >>> groups(x, 0.99)
        [array([0, 2])]
    """
    pairs = []
    for start in range(0, len(vectors), BLOCK):
        cosine = vectors[start : start + BLOCK] @ vectors[start:].T
        rows, columns = np.nonzero(cosine >= threshold)
        pairs.append(np.stack([rows, columns])[:, rows < columns] + start)
    rows, columns = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), (len(vectors),) * 2)
    _, labels = csgraph.connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted((m for m in members if len(m) > 1), key=lambda m: (-len(m), m[0]))


def row(title: str, names: Iterable[str], similarities: Iterable[float]) -> str:
    """HTML of pictures in a row, with file names and similarities.

    Args:
        title: heading, plain text.
        names: paths of the images.
        similarities: cosine of each image.
    """
    figures = [
        f"<figure>{_picture(name)}<figcaption>{similarity:.3f}<br>{html.escape(str(name))}"
        "</figcaption></figure>"
        for name, similarity in zip(names, similarities, strict=True)
    ]
    style = (
        "<style>.row{display:flex;flex-wrap:wrap}figure{margin:.3em;width:9em;font-size:.75em;"
        "overflow-wrap:anywhere}</style>"
    )
    return f"{style}<h2>{html.escape(title)}</h2><div class=row>{''.join(figures)}</div>"


def _picture(name):
    """The center of an image as an HTML element; words if the file is not there any more."""
    try:
        image = image_ops.decode(storage.read_bytes(str(name)))
    except (tf.errors.OpError, OSError):
        return "<p>(cannot be read)</p>"
    jpeg = tf.io.encode_jpeg(image_ops.resize_and_center_crop(image, SIDE_PX, SIDE_PX)).numpy()
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
