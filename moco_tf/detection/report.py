"""The pictures of a detection: report.html."""

import json
import os
import warnings

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pycocotools import mask as coco_mask

from moco_tf import storage
from moco_tf.data import image_ops
from moco_tf.detection.data import densepose
from moco_tf.detection.scoring.coco import CURVES_AT
from moco_tf.evaluation import results
from moco_tf.reports import pages, plots
from moco_tf.training.callbacks import read_metrics

SHOWN, LOWEST = 8, 0.5  # test images, and the score of the detections drawn in them
HEADS = ("mask", "keypoint", "densepose")  # their losses' names begin so
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "APr", "APc", "APf")
COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#00b7b7", "#f032e6", "#9a6324")


def write(workdir, found, annotations, predictions, scores):
    """Writes WORKDIR/report.html.

    Args:
        workdir: local or gs:// folder.
        found: what results.json holds.
        annotations: `records.Annotations` of the test images.
        predictions, scores: of `testing.Tester.score`.
    """
    columns = [name for name in COLUMNS if any(name in of for of in scores.values())]
    rows = [(of, *(_percent(found.get(n)) for n in columns)) for of, found in scores.items()]
    parts = [pages.table(("", *columns), rows), "<h2>Training</h2>", *_curves(workdir, found)]
    parts += ["<h2>Precision and recall</h2><p>Means over the classes.</p>", _precisions(scores)]
    for of, one in scores.items():
        ap = {name: value / 100 for name, value in one["per_class"].items() if value == value}
        parts += [f"<h2>{of} AP of each class</h2>", plots.bars(list(ap.values()), list(ap), "AP")]
    parts += [
        f"<h2>Test images</h2><p>Left the truth, dashed where it is a crowd or difficult; right "
        f"what was found with a score of {LOWEST} and more.</p>",
        *_examples(annotations, predictions),
        "<h2>Results</h2>",
        f"<pre>{pages.escape(json.dumps(found, indent=2))}</pre>",
    ]
    page = pages.page(f"detection: {workdir}", results.summary(found), parts)
    storage.write_text(os.path.join(workdir, "report.html"), page)


def _percent(value):
    return "" if value is None or value != value else f"{value:.1f} %"


def _curves(workdir, found):
    """The losses, and the AP of the tests on the way and of the last."""
    lines = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    steps = [line for line in lines if "loss" in line]
    names = [n for n in steps[0] if n.startswith(("loss", "rpn_", "box_", *HEADS))]
    losses = {name: [line[name] for line in steps if name in line] for name in names}
    x = [line["step"] for line in steps]
    ap = {name: m["value"] for name, m in found["metrics"].items() if name.endswith("ap50")}
    tests = [line for line in lines if "test_box_ap50" in line]
    curves = {
        results.NAMES[n]: [*(line[f"test_{n}"] for line in tests), value] for n, value in ap.items()
    }
    return [
        plots.curves(
            [
                ("training losses", "step", x, losses),
                ("test AP50", "step", [*(line["step"] for line in tests), x[-1]], curves),
            ]
        )
    ]


def _precisions(scores):
    curves = []
    for of, found in scores.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # there may be no objects to find
            means = np.nanmean(found["precision"], axis=-1)
        overlap = {"keypoint": "OKS", "densepose": "GPS"}.get(of, "IoU")
        lines = {f"{overlap} {at}": mean for at, mean in zip(CURVES_AT, means)}
        curves.append((f"{of} precision", "recall", found["recall"], lines))
    return plots.curves(curves, limits=(0, 1.05))


def _examples(annotations, predictions):
    chosen = np.unique(np.linspace(0, annotations.num_examples - 1, SHOWN).astype(int))
    for number in chosen:
        with tf.io.gfile.GFile(annotations.images[number], "rb") as file:
            image = image_ops.decode(tf.constant(file.read())).numpy()
        figure = Figure(figsize=(10, 0.4 + 5 * image.shape[0] / image.shape[1]))
        left, right = figure.subplots(1, 2)
        found = predictions[number]
        _draw(left, image, annotations.classes, **_truth(annotations, number))
        kept = found["score"] >= LOWEST
        _draw(
            *(right, image, annotations.classes, found["boxes"][kept], found["label"][kept]),
            rles=[found["rles"][i] for i in np.flatnonzero(kept)] if "rles" in found else None,
            keypoints=found["keypoints"][kept] if "keypoints" in found else None,
            surface=[*_surface(found, kept)] if "densepose" in found else None,
            score=found["score"][kept],
        )
        yield pages.figure(figure)


def _truth(annotations, number):
    own, packed = slice(*annotations.offsets[number : number + 2]), annotations.densepose_points
    return {
        "boxes": annotations.boxes[own],
        "label": annotations.labels[own],
        "rles": None if annotations.rles is None else annotations.rles[own],
        "keypoints": None if annotations.keypoints is None else annotations.keypoints[own],
        "surface": None if packed is None else [*map(densepose.points_of, packed[own])],
        "dashed": (annotations.crowd | annotations.difficult)[own],
    }


def _surface(found, kept):
    """Points of the surface, x, y and part, in every other cell of the detections' boxes."""
    for cells, (x1, y1, x2, y2) in zip(found["densepose"][kept], found["boxes"][kept]):
        rows, columns = np.nonzero(cells[::2, ::2, 0])
        x = x1 + (2 * columns + 0.5) * (x2 - x1) / len(cells)
        y = y1 + (2 * rows + 0.5) * (y2 - y1) / len(cells)
        yield np.stack([x, y, cells[2 * rows, 2 * columns, 0]], axis=1)


def _draw(
    axis,
    image,
    classes,
    boxes,
    label,
    rles=None,
    keypoints=None,
    surface=None,
    score=None,
    dashed=None,
):
    """Draws objects into an image.

    Colors are those of classes, of masks those of instances, of the surface those of parts.
    """
    axis.imshow(image)
    axis.set_axis_off()
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        color = COLORS[label[i] % len(COLORS)]
        line = "--" if dashed is not None and dashed[i] else "-"
        box = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, color=color, ls=line)
        axis.add_patch(box)
        text = plots.plain(classes[label[i]]) + ("" if score is None else f" {score[i]:.2f}")
        axis.text(x1, y1, text, fontsize=6, color="white", backgroundcolor=color)
        if rles is not None:
            mask = coco_mask.decode(rles[i])
            shade = COLORS[i % len(COLORS)]
            axis.contourf(mask, levels=[0.5, 1], colors=[shade], alpha=0.4)
        if keypoints is not None:
            seen = keypoints[i][keypoints[i][:, 2] > 0]
            axis.scatter(seen[:, 0] - 0.5, seen[:, 1] - 0.5, s=6, color=color, edgecolors="white")
    for points in surface or ():
        x, y, part = points[:, :3].T
        axis.scatter(x - 0.5, y - 0.5, 3, part, cmap="nipy_spectral", vmin=0, vmax=densepose.PARTS)
