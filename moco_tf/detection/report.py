"""The report.html of a detection: scores, curves, precision and recall, example images."""

import json
import os
import warnings
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moco_tf import storage
from moco_tf.data import image_ops
from moco_tf.detection.data import densepose
from moco_tf.detection.data.annotations import Annotations
from moco_tf.detection.drawing import draw
from moco_tf.detection.scoring import pck
from moco_tf.detection.scoring.coco import CURVES_AT
from moco_tf.evaluation import results
from moco_tf.reports import pages, plots
from moco_tf.training.metrics_file import Curves, lines_of

SHOWN, LOWEST = 8, 0.5  # test images, and the lowest score of detections drawn in them
HEADS = ("mask", "keypoint", "densepose")  # first words of the names of their losses
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR", "APr", "APc", "APf", *pck.SHARES)


def write(
    workdir: str,
    finished: dict,
    annotations: Annotations,
    predictions: Sequence[dict],
    scores: dict[str, dict],
) -> None:
    """Writes WORKDIR/report.html.

    Args:
        workdir: local or gs:// folder.
        finished: contents of results.json.
        annotations: `Annotations` of the test images.
        predictions: N dicts, returned by `Tester.score`.
        scores: dict from "box", "mask", "keypoint" or "densepose" to its scores, returned by
            `Tester.score`.
    """
    columns = [name for name in COLUMNS if any(name in of_head for of_head in scores.values())]
    rows = [
        (head, *(_percent(of_head.get(name)) for name in columns))
        for head, of_head in scores.items()
    ]
    parts = [
        pages.table(("", *columns), rows),
        "<h2>Training</h2>",
        _curves(workdir, finished),
        "<h2>Precision and recall</h2><p>Mean over the classes.</p>",
        _precisions(scores),
    ]
    for head, of_head in scores.items():
        metric, of_each = ("PCK10", "keypoint") if "PCK10" in of_head else ("AP", "class")
        shares = {n: v / 100 for n, v in of_head[f"per_{of_each}"].items() if v == v}
        parts.append(f"<h2>{head} {metric} of each {of_each}</h2>")
        parts.append(plots.bars(list(shares.values()), list(shares), metric))
    parts += [
        "<h2>Test images</h2><p>Left: the truth, dashed for crowds and difficult objects. Right: "
        f"detections with a score of {LOWEST} and more.</p>",
        *_examples(annotations, predictions),
        "<h2>Results</h2>",
        f"<pre>{pages.escape(json.dumps(finished, indent=2))}</pre>",
    ]
    page = pages.page(f"detection: {workdir}", results.summary(finished), parts)
    storage.write_text(os.path.join(workdir, "report.html"), page)


def _percent(value):
    return "" if value is None or value != value else f"{value:.1f} %"


def _curves(workdir, finished):
    """The losses, and the AP (PCK) of the tests during training and of the last test."""
    path = os.path.join(workdir, "metrics.jsonl")
    first = next(line for line in lines_of(path) if "loss" in line)
    names = [n for n in first if n.startswith(("loss", "rpn_", "box_", *HEADS))]
    ends = ("ap50", "pck10")
    ap = {name: m["value"] for name, m in finished["metrics"].items() if name.endswith(ends)}
    ap = {name: float("nan") if value is None else value for name, value in ap.items()}
    values, last = Curves([*names, *(f"test_{name}" for name in ap)]), 0
    for line in lines_of(path):
        values.add(line)
        last = line["step"] if "loss" in line else last
    x, _ = values.points("loss")
    losses = {name: values.points(name)[1] for name in names}
    test_steps = [*values.points("test_box_ap50")[0], last]
    curves = {
        results.title_of(name, finished): [*values.points(f"test_{name}")[1], value]
        for name, value in ap.items()
    }
    return plots.curves(
        [("training losses", "step", x, losses), ("test AP50", "step", test_steps, curves)]
    )


def _precisions(scores):
    curves = []
    for head, of_head in scores.items():
        if "precision" not in of_head:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # there may be no objects to find
            means = np.nanmean(of_head["precision"], axis=-1)
        overlap = {"keypoint": "OKS", "densepose": "GPS"}.get(head, "IoU")
        lines = {f"{overlap} {at}": mean for at, mean in zip(CURVES_AT, means, strict=True)}
        curves.append((f"{head} precision", "recall", of_head["recall"], lines))
    return plots.curves(curves, limits=(0, 1.05))


def _examples(annotations, predictions):
    """Figures of a few test images, with the truth and the detections."""
    chosen = np.unique(np.linspace(0, annotations.num_examples - 1, SHOWN).astype(int))
    for number in chosen:
        with tf.io.gfile.GFile(annotations.images[number], "rb") as file:
            image = image_ops.decode(tf.constant(file.read())).numpy()
        figure = Figure(figsize=(10, 0.4 + 5 * image.shape[0] / image.shape[1]))
        left, right = figure.subplots(1, 2)
        draw(left, image, annotations.classes, **_truth(annotations, number))
        draw(right, image, annotations.classes, **_detections(predictions[number]))
        yield pages.figure(figure)


def _truth(annotations, number):
    """The objects of an image, as arguments of `draw`."""
    rows = slice(*annotations.offsets[number : number + 2])
    packed = annotations.densepose_points
    return {
        "boxes": annotations.boxes[rows],
        "label": annotations.labels[rows],
        "rles": None if annotations.rles is None else annotations.rles[rows],
        "keypoints": None if annotations.keypoints is None else annotations.keypoints[rows],
        "surface": None if packed is None else [*map(densepose.points_of, packed[rows])],
        "dashed": (annotations.crowd | annotations.difficult)[rows],
    }


def _detections(predicted):
    """The detections in an image with a high score, as arguments of `draw`."""
    kept = np.flatnonzero(predicted["score"] >= LOWEST)
    return {
        "boxes": predicted["boxes"][kept],
        "label": predicted["label"][kept],
        "rles": [predicted["rles"][i] for i in kept] if "rles" in predicted else None,
        "keypoints": predicted["keypoints"][kept] if "keypoints" in predicted else None,
        "surface": [*_surface(predicted, kept)] if "densepose" in predicted else None,
        "score": predicted["score"][kept],
    }


def _surface(predicted, kept):
    """Points of the surface, x, y and part, in every other cell of the detections' boxes."""
    all_cells, boxes = predicted["densepose"][kept], predicted["boxes"][kept]
    for cells, (x1, y1, x2, y2) in zip(all_cells, boxes, strict=True):
        rows, columns = np.nonzero(cells[::2, ::2, 0])
        x = x1 + (2 * columns + 0.5) * (x2 - x1) / len(cells)
        y = y1 + (2 * rows + 0.5) * (y2 - y1) / len(cells)
        yield np.stack([x, y, cells[2 * rows, 2 * columns, 0]], axis=1)
