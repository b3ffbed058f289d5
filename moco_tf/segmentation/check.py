"""Check of images with label maps: facts, classes, findings, and pictures."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from moco_tf.reports import pages, plots
from moco_tf.reports.checks import Check
from moco_tf.segmentation import examination, sources

SHOWN = 6  # images, each beside its map
LEGEND = 20  # classes that a map's legend names


def check(
    address: str,
    num_classes: int | None = None,
    ignored: tuple[int, ...] = (),
    quiet: bool = False,
) -> Check:
    """Checks the images and label maps of an address.

    Args:
        address: address of a form in `sources.ADDRESSES`.
        num_classes: number of classes, required for folders:; None takes the set's own.
        ignored: numbers in the maps to ignore, besides 255.
        quiet: shows no progress bar.

    Raises:
        ValueError: for an unknown address, a missing file, or an unknown number of classes.

    Example:
        print(checks.text(check("camvid:CamVid:train")))
    """
    pairs = sources.open_pairs(address, num_classes, ignored)
    examined = examination.examine(pairs, quiet)
    sizes = examined.sizes[examined.sizes[:, 0] > 0]
    facts = [("images", f"{pairs.num_examples:,}")]
    if len(sizes):
        (h, w), (height, width) = sizes.min(axis=0), sizes.max(axis=0)
        text = f"{w} x {h}" if (h, w) == (height, width) else f"{w} x {h} to {width} x {height}"
        facts[0] = ("images", f"{pairs.num_examples:,}, {text} px (width x height)")
    facts.append(("classes", str(len(pairs.classes))))
    total = max(examined.pixels.sum(), 1)
    rows = []
    for number, name in enumerate(pairs.classes):
        numbers = np.flatnonzero(pairs.table == number)
        share = examined.pixels[numbers].sum() / total
        rows.append(
            [name, ", ".join(map(str, numbers)), f"{share:.2%}", _images(examined, numbers)]
        )
    numbers = np.flatnonzero((pairs.table == sources.IGNORED) & (examined.pixels > 0))
    if len(numbers):
        share = examined.pixels[numbers].sum() / total
        listed = ", ".join(map(str, numbers))
        rows.append(["(ignored)", listed, f"{share:.2%}", _images(examined, numbers)])
    header = ["class", "number", "pixels", "images"]
    return Check(address, examined.findings, facts, header, rows, _pictures(pairs))


def _images(examined, numbers):
    """Number of images with a class, as text; at least that many if it has several numbers."""
    return f"{examined.images[numbers].max(initial=0):,}"


def _pictures(pairs: sources.Pairs) -> Iterator[str]:
    """Images beside their maps, spread over the set; ignored pixels are white."""
    for index in np.unique(np.linspace(0, pairs.num_examples - 1, SHOWN).astype(int)):
        try:
            image = pairs.image(tf.constant(index, tf.int64)).numpy()
            label = pairs.label(tf.constant(index, tf.int64)).numpy()
        except tf.errors.OpError:
            continue
        figure = Figure(figsize=(10, 0.4 + 5 * image.shape[0] / image.shape[1]))
        left, right = figure.subplots(1, 2)
        left.imshow(image)
        left.set_title(pairs.images[index].rsplit("/", 1)[-1].replace("$", r"\$"), fontsize=8)
        is_class = (label >= 0) & (label != sources.IGNORED)
        shown = np.ma.masked_where(~is_class, label)
        right.imshow(shown, cmap="tab20", vmin=0, vmax=max(len(pairs.classes) - 1, 1))
        present = np.unique(label[is_class])[:LEGEND]
        handles = [
            Patch(color=right.images[0].to_rgba(number), label=plots.plain(pairs.classes[number]))
            for number in present
        ]
        right.legend(handles=handles, fontsize=6, loc="lower right")
        for axis in (left, right):
            axis.set_axis_off()
        yield pages.figure(figure)
