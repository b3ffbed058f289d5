"""Draws the pictures of README.md and docs/concepts.md into docs/pictures.

python tools/concept_pictures.py [FOLDER]
"""

import pathlib
import sys

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

ROOT = pathlib.Path(__file__).resolve().parent.parent
QUERY, KEY, GRAY = "#2a6fb0", "#c2571a", "#666666"
FILLS = {QUERY: "#dcebf8", KEY: "#fbe6d8", GRAY: "#eeeeee"}
VIEWED, VIEWS, VIEW_PX = (3, 8, 12), 3, 32  # numbers of the generated images, views of each


def canvas(width, height):
    """A figure whose axes are measured in inches, without frame."""
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set(xlim=(0, width), ylim=(0, height))
    axis.axis("off")
    return figure, axis


def box(axis, x, y, width, height, text, color=GRAY, size=10):
    """A rounded box with its lower left corner at (x, y)."""
    axis.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=FILLS[color],
            edgecolor=color,
            linewidth=1.2,
        )
    )
    axis.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=size)


def arrow(axis, start, end, text="", color=GRAY, style="-|>", dashed=False, above=0.1):
    """An arrow from start to end, with a text at its middle."""
    line = "--" if dashed else "-"
    properties = {"arrowstyle": style, "color": color, "linewidth": 1.4, "linestyle": line}
    axis.annotate("", end, start, arrowprops=properties)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    axis.text(x, y + above, text, ha="center", va="bottom", fontsize=8.5, color=color)


def method():
    """MoCo: two views, two encoders, the queue and the loss."""
    figure, axis = canvas(9, 3.5)
    box(axis, 0.1, 1.35, 0.9, 0.7, "image")
    box(axis, 1.6, 2.45, 1.2, 0.6, "query view", QUERY)
    box(axis, 1.6, 0.35, 1.2, 0.6, "key view", KEY)
    arrow(axis, (1.0, 1.85), (1.6, 2.6))
    arrow(axis, (1.0, 1.55), (1.6, 0.8))
    box(axis, 3.4, 2.4, 1.6, 0.7, "query encoder\n(trained by SGD)", QUERY)
    box(axis, 3.4, 0.3, 1.6, 0.7, "key encoder\n(no gradient)", KEY)
    arrow(axis, (2.8, 2.75), (3.4, 2.75), color=QUERY)
    arrow(axis, (2.8, 0.65), (3.4, 0.65), color=KEY)
    arrow(axis, (4.2, 2.4), (4.2, 1.0), color=KEY, dashed=True)
    axis.text(
        4.1, 1.7, "momentum update\nk ← m k + (1 - m) q", ha="right", va="center", fontsize=8.5
    )
    box(axis, 6.9, 2.4, 1.9, 0.7, "which key belongs\nto this query?")
    arrow(axis, (5.0, 2.75), (6.9, 2.75), "query", QUERY)
    box(axis, 6.0, 0.3, 2.8, 0.7, "queue: keys of the last batches", KEY)
    arrow(axis, (5.0, 0.65), (6.0, 0.65), color=KEY)
    arrow(axis, (5.0, 0.9), (7.1, 2.4), color=KEY)
    axis.text(5.55, 1.62, "its key:\npositive", ha="center", fontsize=8.5, color=KEY)
    arrow(axis, (8.2, 1.0), (8.2, 2.4), color=KEY)
    axis.text(8.1, 1.62, "other images' keys:\nnegatives", ha="right", fontsize=8.5, color=KEY)
    return figure


def topology():
    """Hosts, replicas and BN groups of one global batch."""
    figure, axis = canvas(9, 2.7)
    axis.text(0.1, 2.45, "one global batch of 16 rows", fontsize=10, weight="bold")
    for host in range(2):
        left = 0.1 + 4.5 * host
        box(axis, left, 0.1, 4.3, 2.1, "", GRAY)
        axis.text(left + 0.1, 1.95, f"host {host}: one process, one worker", fontsize=9)
        for replica in range(2):
            x = left + 0.15 + 2.05 * replica
            box(axis, x, 0.25, 1.95, 1.6, "", QUERY)
            axis.text(x + 0.1, 1.6, f"replica {2 * host + replica}: one device", fontsize=9)
            for group in range(2):
                box(axis, x + 0.1 + 0.9 * group, 0.35, 0.85, 1.1, "BN group\n\n2 rows", KEY, 8)
    return figure


def shuffle_bn():
    """The key views of a batch go to other BN groups than the query views."""
    figure, axis = canvas(9, 2.3)
    order = (
        4,
        6,
        1,
        3,
        7,
        0,
        5,
        2,
    )  # rows of the key views as encoded
    for name, y, rows, color in (("queries", 1.5, range(8), QUERY), ("keys", 0.3, order, KEY)):
        axis.text(0.1, y + 0.25, name, fontsize=10, color=color, va="center")
        for group in range(2):
            box(axis, 1.1 + 3.9 * group, y - 0.1, 3.7, 0.7, "", color)
        for place, row in enumerate(rows):
            x = 1.2 + 0.9 * place + 0.3 * (place // 4)
            box(axis, x, y, 0.75, 0.5, f"image {row}", GRAY, 8)
    for row in range(8):
        places = row, order.index(row)
        x = [1.575 + 0.9 * place + 0.3 * (place // 4) for place in places]
        axis.plot(x, (1.4, 0.9), color=GRAY, linewidth=0.7)
    axis.text(1.1, 2.15, "A large box is a BN group: its rows share mean and variance.", fontsize=9)
    return figure


def views():
    """Random views of generated images by the recipe of MoCo v2."""
    from moco_tf.data import recipes
    from moco_tf.data.sources import synthetic

    images, _ = synthetic.shapes(max(VIEWED) + 1, seed=0)
    recipe = recipes.find("moco:v2")
    figure = Figure(figsize=(5, 3.8))
    axes = figure.subplots(len(VIEWED), VIEWS + 1)
    for row, number in zip(axes, VIEWED, strict=True):
        pictures = [images[number]]
        for view in range(VIEWS):
            draws = recipe.draw(0, VIEWS * number + view, 0)
            crop = recipe.geometry(images[number], draws, VIEW_PX)
            x = recipe.photometric(crop[None], draws[None])[0].numpy()
            pictures.append(np.clip(x * recipe.std + recipe.mean, 0, 1))
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
    for place, axis in enumerate(axes[0]):
        axis.set_title(f"view {place}" if place else "image", fontsize=10)
    figure.tight_layout()
    return figure


def main(folder=ROOT / "docs" / "pictures"):
    """Writes the pictures into a folder."""
    matplotlib.rcParams["svg.hashsalt"] = "moco_tf"  # the same file each time
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text: files of a tenth of the lines
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (method, topology, shuffle_bn):
        path = folder / f"{draw.__name__}.svg"
        draw().savefig(path, metadata={"Date": None}, facecolor="white")
    views().savefig(folder / "views.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
