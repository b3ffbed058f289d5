"""Check of the image files of a set: that they decode, their sizes, and their EXIF orientation."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf.data import exif, image_ops
from moco_tf.data.findings import Findings
from moco_tf.detection.data import problems


def examine(
    paths: Sequence[str], annotated: np.ndarray, findings: Findings, quiet: bool = False
) -> None:
    """Decodes all images once and adds findings about them.

    Args:
        paths: paths of N images.
        annotated: int Nx2, heights and widths in the annotations, px.
        findings: `Findings` to add to.
        quiet: shows no progress bar.
    """
    sizes, orientations = _read(paths, quiet)
    annotated = np.asarray(annotated).reshape(-1, 2)
    swapped = annotated[:, ::-1]
    is_unreadable = ~sizes.any(axis=1)
    is_wrong = ~is_unreadable & (sizes != annotated).any(axis=1)
    is_swapped = is_wrong & (sizes == swapped).all(axis=1)
    is_turned = is_swapped & (orientations >= 5)

    def place(i):
        text = f"{sizes[i]} px, annotated {annotated[i]} px"
        turn = exif.TURNS.get(int(orientations[i]))
        text += f", EXIF orientation {orientations[i]}: {turn}" if turn else ""
        return paths[i], "", "", text

    def add(kind, selected):
        findings.add_each(kind, np.flatnonzero(selected), place)

    findings.add_each(
        problems.UNREADABLE, np.flatnonzero(is_unreadable), lambda i: (str(paths[i]),)
    )
    add(problems.TURNED, is_turned)
    add(problems.SWAPPED_SIZE, is_swapped & ~is_turned)
    add(problems.WRONG_SIZE, is_wrong & ~is_swapped)
    add(problems.MAYBE_TURNED, ~is_unreadable & ~is_wrong & (orientations > 1))


def _read(paths, quiet):
    """Height and width of each image, int Nx2, 0 if it cannot be decoded, and its orientation."""
    count = len(paths)
    sizes, orientations = np.zeros((count, 2), int), np.ones(count, int)
    if not count:
        return sizes, orientations
    data = tf.data.Dataset.from_tensor_slices((np.arange(count), list(paths)))
    data = data.map(_size_and_head, tf.data.AUTOTUNE)
    data = data.ignore_errors(log_warning=False).as_numpy_iterator()
    for index, size, head in tqdm(data, "checking", count, unit="image", disable=quiet):
        sizes[index] = size
        orientations[index] = exif.orientation(head)
    return sizes, orientations


@tf.function(
    autograph=False,
    input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)],
)
def _size_and_head(index, path):
    encoded = tf.io.read_file(path)
    head = tf.strings.substr(encoded, 0, exif.HEAD_BYTES)
    return index, tf.shape(image_ops.decode(encoded))[:2], head
