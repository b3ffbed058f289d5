"""The report.html of a segmentation: scores, curves, confusion, example predictions."""

import json
import os

import numpy as np
import tensorflow as tf

from moco_tf import storage
from moco_tf.evaluation import results
from moco_tf.reports import pages, plots
from moco_tf.segmentation.sources import IGNORED, Pairs
from moco_tf.training.metrics_file import Curves, lines_of

SHOWN, HEIGHT, WIDTH = 8, 180, 240


def prediction_path(folder: str, pairs: Pairs, index: int) -> str:
    """Path of the predicted label map of an image."""
    stem = os.path.splitext(os.path.basename(pairs.labels[index]))[0]
    return os.path.join(folder, f"{index:05}_{stem}.png")


def write(workdir: str, record: dict, pairs: Pairs, matrices: np.ndarray, folder: str):
    """Writes WORKDIR/report.html.

    Args:
        workdir: local or gs:// folder.
        record: content of results.json.
        pairs: test images.
        matrices: confusion matrix of each image, int64 NxKxK.
        folder: folder of the predicted label maps.
    """
    values = Curves(["loss", "test_miou"])
    for line in lines_of(os.path.join(workdir, "metrics.jsonl")):
        values.add(line)
    (steps, loss), (tests, miou) = values.points("loss"), values.points("test_miou")
    curves = [
        ("training loss", "step", steps, {"loss": loss}),
        ("test mIoU", "step", tests, {"mIoU": miou}),
    ]
    iou = {name: v for name, v in record["details"]["class_iou"].items() if v is not None}
    scores = [
        (results.title_of(n, record), results.percent(m)) for n, m in record["metrics"].items()
    ]
    majority = record["details"]["majority"]
    scores.append((f"mIoU of {majority['class']} everywhere", f"{majority['miou']:.1%}"))
    parts = [
        pages.table(("", "95 % interval over images"), scores),
        "<h2>Curves</h2>",
        plots.curves(curves),
        "<h2>IoU of each class</h2>",
        plots.bars(list(iou.values()), list(iou), "IoU"),
        "<h2>Confusion of pixels</h2>",
        plots.confusion(matrices.sum(axis=0), pairs.classes),
        "<h2>Test images</h2><p>Image, truth, prediction, errors (red; ignored pixels white).</p>",
        _examples(pairs, folder),
        "<h2>Results</h2>",
        f"<pre>{pages.escape(json.dumps(record, indent=2))}</pre>",
    ]
    page = pages.page(f"segmentation: {workdir}", results.summary(record), parts)
    storage.write_text(os.path.join(workdir, "report.html"), page)


def _examples(pairs, folder):
    colors = palette(len(pairs.classes))
    rows = []
    for i in np.unique(np.linspace(0, pairs.num_examples - 1, SHOWN).astype(int)):
        label = pairs.label(tf.constant(i, tf.int64)).numpy()
        with tf.io.gfile.GFile(prediction_path(folder, pairs, i), "rb") as file:
            predicted = tf.io.decode_png(file.read(), channels=1)[..., 0].numpy()
        errors = np.where((label != predicted)[..., None], [[[200, 30, 30]]], [[[235, 235, 235]]])
        errors = np.where((label == IGNORED)[..., None], 255, errors)
        image = pairs.image(tf.constant(i, tf.int64)).numpy()
        maps = [colors[label], colors[predicted], errors]
        rows.append([_small(image, "area"), *(_small(m, "nearest") for m in maps)])
    return pages.grid(rows)


def _small(image, method):
    return tf.image.resize(image.astype(np.float32), [HEIGHT, WIDTH], method=method).numpy()


def palette(num_classes: int) -> np.ndarray:
    """Colors of the classes in PASCAL VOC's palette, uint8 256x3; ignored pixels are white.

    Bits 0, 1 and 2 of a class number are the highest bits of red, green and blue, bits 3, 4 and 5
    the next ones, and so on.
    """
    numbers = np.arange(256)[:, None]
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8 // 3 + 1):
        colors |= (((numbers >> (3 * bit + np.arange(3))) & 1) << (7 - bit)).astype(np.uint8)
    colors[num_classes:] = 255
    return colors
