"""Plots for the reports, as HTML elements: curves, confusion matrices, bars."""

import numpy as np
from matplotlib.figure import Figure

from moco_tf.reports import pages

LABELS = 25  # with more classes than that, names are left out


def plain(text):
    """Text that Matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def curves(panels: list[tuple], limits: tuple | None = None) -> str:
    """Plots of lines, side by side.

    Args:
        panels: a `(title, x label, x, dict of y by name)` for each plot.
        limits: smallest and largest y shown; None for all.
    """
    figure = Figure(figsize=(5 * len(panels), 3))
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (title, label, x, lines) in zip(axes[0], panels, strict=True):
        for name, y in lines.items():
            axis.plot(x, y, label=name, marker="." if len(x) < 100 else "")
        axis.set(title=title, xlabel=label, ylim=limits)
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            axis.legend()
    return pages.figure(figure)


def confusion(counts, classes: list[str]) -> str:
    """A confusion matrix.

    Args:
        counts: int KxK; the row is the true class, the column the predicted one.
        classes: names of the K classes.
    """
    k = len(classes)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(9, 3.5 + 0.25 * k)
    figure = Figure(figsize=(size, size))
    axis = figure.subplots()
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="true")
    if k <= LABELS:
        names = [plain(name) for name in classes]
        axis.set_xticks(range(k), names, rotation=90)
        axis.set_yticks(range(k), names)
        for i, j in np.argwhere(counts):
            text = counts[i, j] if counts.max() < 10_000 else f"{share[i, j]:.0%}"
            shade = "white" if share[i, j] > 0.5 else "black"
            axis.text(j, i, text, ha="center", va="center", color=shade, fontsize=7)
    return pages.figure(figure)


def bars(values, names: list[str], label: str) -> str:
    """Horizontal bars, the smallest at the bottom.

    Args:
        values: shares in [0, 1].
        names: name of each bar.
        label: what the values are.
    """
    order = np.argsort(values)
    figure = Figure(figsize=(9, min(8, 1 + 0.25 * len(order))))
    axis = figure.subplots()
    axis.barh(range(len(order)), np.asarray(values)[order], color="#7fb0d8")
    if len(order) <= 2 * LABELS:
        axis.set_yticks(range(len(order)), [plain(names[i]) for i in order])
    axis.set(xlabel=label, xlim=(0, 1))
    return pages.figure(figure)
