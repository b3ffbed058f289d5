"""The report.html of a classification task, and the comparison of evaluations."""

import json
import os

import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from moco_tf import storage
from moco_tf.data.labelled import center_crops
from moco_tf.evaluation import results
from moco_tf.evaluation.labelled import Labelled
from moco_tf.probes import knn
from moco_tf.reports import pages, plots

MISTAKES, QUERIES, NEIGHBOURS, POINTS = 16, 8, 8, 1000


def write(workdir: str, record: dict, outcome, splits: Labelled, crop: tuple[int, int]) -> str:
    """Writes WORKDIR/report.html.

    Args:
        workdir: local or gs:// folder.
        record: content of results.json.
        outcome: `classification.Outcome`.
        splits: training and test images.
        crop: short side before the center crop and side of the crop, px.

    Returns:
        Path of the report.
    """
    scores, labels, classes = outcome.scores, outcome.labels, splits.classes
    parts = ["<h2>Accuracy</h2>", pages.table(("", "95 % interval"), _metrics(record))]
    if outcome.curves:
        parts += ["<h2>Curves</h2>", plots.curves(outcome.curves)]
    parts += ["<h2>Confusion</h2>", _confusion(scores.argmax(axis=1), labels, classes)]
    parts += ["<h2>Accuracy of each class</h2>", _per_class(scores, labels, classes)]
    parts += ["<h2>Most confident mistakes</h2>", *_mistakes(outcome, splits, crop)]
    parts += [
        "<h2>Nearest neighbours</h2><p>First column: a test image; then the test images with the "
        "most similar features, nearest first.</p>",
        _neighbours(outcome, splits.test, crop),
        "<h2>Map of the features</h2>",
        *_map(outcome.features, labels, classes),
        "<h2>Results</h2>",
        f"<pre>{pages.escape(json.dumps(record, indent=2))}</pre>",
    ]
    path = os.path.join(workdir, "report.html")
    page = pages.page(f"{record['task']}: {workdir}", results.summary(record), parts)
    storage.write_text(path, page)
    return path


def compare(workdirs: list[str], workdir: str) -> str:
    """Writes the comparison of several evaluations to a workdir: table.md and report.html.

    Args:
        workdirs: folders of finished evaluations.
        workdir: folder of the comparison.

    Returns:
        The table as Markdown.

    Raises:
        ValueError: for fewer than two evaluations, or one without results.
    """
    if len(workdirs) < 2:
        raise ValueError(
            "`--task=compare` needs the workdirs of two or more evaluations. Received: "
            f"{', '.join(workdirs) or 'none'}."
        )
    header, rows = results.compare(workdirs)
    table = pages.markdown(header, rows)
    tf.io.gfile.makedirs(workdir)
    storage.write_text(os.path.join(workdir, "table.md"), table + "\n")
    first = [next(iter(results.read(w)["metrics"].values())) for w in workdirs]
    values = np.array([metric["value"] for metric in first])
    intervals = [metric.get("interval", [metric["value"]] * 2) for metric in first]
    errors = np.abs(np.array(intervals).T - values)
    figure = Figure(figsize=(9, 1.2 + 0.4 * len(first)))
    axis = figure.subplots()
    axis.barh(range(len(rows)), values, xerr=errors, color="#7fb0d8")
    axis.set_yticks(range(len(rows)), [plots.plain(f"{row[0]} ({row[2]})") for row in rows])
    axis.invert_yaxis()
    axis.set(xlabel="first score of each, with its 95 % interval if known", xlim=(0, 1))
    parts = [pages.table(header, rows), pages.figure(figure)]
    page = pages.page("Comparison", f"{len(rows)} evaluations", parts)
    storage.write_text(os.path.join(workdir, "report.html"), page)
    return table


def _metrics(record):
    return [
        (results.title_of(name, record), results.percent(metric))
        for name, metric in record["metrics"].items()
    ]


def _confusion(predicted, labels, classes):
    k = len(classes)
    counts = np.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)
    return plots.confusion(counts, classes)


def _per_class(scores, labels, classes):
    hits = scores.argmax(axis=1) == labels
    present = np.unique(labels)
    share = np.array([hits[labels == i].mean() for i in present])
    return plots.bars(share, [classes[i] for i in present], "accuracy")


def _mistakes(outcome, splits, crop):
    scores, labels = outcome.scores, outcome.labels
    predicted, confidence = scores.argmax(axis=1), scores.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    if not len(worst):
        return ["<p>None.</p>"]
    images = center_crops(splits.test, outcome.numbers[np.sort(worst)], *crop)
    images = images[np.argsort(np.argsort(worst))]
    rows = [
        (
            f"{i + 1}",
            splits.classes[labels[j]],
            splits.classes[predicted[j]],
            f"{confidence[j]:.0%}",
        )
        for i, j in enumerate(worst)
    ]
    table = pages.table(("image", "true", "predicted", "confidence"), rows)
    return [pages.grid([images[i : i + 8] for i in range(0, len(images), 8)]), table]


def _neighbours(outcome, test, crop):
    features = outcome.features
    queries = np.unique(np.linspace(0, len(features) - 1, QUERIES).astype(int))
    _, nearest = knn.nearest(features, features[queries], NEIGHBOURS + 1, block=len(queries))
    shown = np.unique(nearest)
    images = center_crops(test, outcome.numbers[shown], *crop)
    return pages.grid([images[np.searchsorted(shown, row)] for row in nearest])


def _map(features, labels, classes):
    if len(features) < 5:
        return ["<p>Too few images.</p>"]
    chosen = np.unique(np.linspace(0, len(features) - 1, POINTS).astype(int))
    try:
        from umap import UMAP

        name, method = "UMAP", UMAP(random_state=0)
    except ImportError:
        from sklearn.manifold import TSNE

        name, method = "t-SNE", TSNE(perplexity=min(30, (len(chosen) - 1) / 3), random_state=0)
    x, y = method.fit_transform(features[chosen]).T
    figure = Figure(figsize=(8, 6))
    axis = figure.subplots()
    points = axis.scatter(x, y, c=labels[chosen], cmap="tab20", s=8)
    axis.set(xticks=[], yticks=[])
    if len(classes) <= plots.LABELS:
        present = np.unique(labels[chosen])
        handles = [
            Line2D([], [], ls="", marker="o", color=points.cmap(points.norm(i))) for i in present
        ]
        axis.legend(handles, [plots.plain(classes[i]) for i in present], fontsize=7, loc="best")
    return [f"<p>{name} of {len(chosen)} test images.</p>", pages.figure(figure)]
