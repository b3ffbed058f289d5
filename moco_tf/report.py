"""The pictures of a run, in one self-contained file: report.html.

python -m moco_tf.report WORKDIR
"""

import base64
import html
import io
import json
import math
import os
import sys

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moco_tf import addresses, checkpoint, datasets, image_ops, recipes, schema
from moco_tf import config as config_lib
from moco_tf.callbacks import read_metrics
from moco_tf.datasets import Stream
from moco_tf.evaluation import features, knn
from moco_tf.input_pipeline import training_dataset
from moco_tf.layout import Layout
from moco_tf.recipes import standard

PAIRS, QUERIES, NEIGHBOURS, GALLERY = 12, 8, 8, 1024


def write(workdir, source, recipe, encoder, config):
    """Writes WORKDIR/report.html: curves, augmented pairs, nearest neighbours, config.

    Args:
        workdir: local or gs:// folder with a metrics.jsonl.
        source: `datasets.Source` or `Stream`.
        recipe: of the run.
        encoder: query encoder.
        config: `Config` of the run.

    Returns:
        Path of the report.
    """
    metrics = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    size = config.data.image_size_px
    resize = config.monitor.resize_px or round(size * 8 / 7)
    images = _gallery(source, resize, size)
    parts = [
        "<h2>Curves</h2>",
        img(_curves(metrics, config)),
        "<h2>Augmented pairs</h2><p>Each column: two views of one image.</p>",
        img(_png(_pairs(source, recipe, config))),
        "<h2>Nearest neighbours</h2><p>First column: the query; then the most similar of "
        f"{len(images)} images by the backbone's features, nearest first.</p>",
        img(_png(_neighbours(images, recipe, encoder))),
        "<h2>Config</h2>",
        f"<pre>{html.escape(json.dumps(schema.to_dict(config), indent=2))}</pre>",
    ]
    path = os.path.join(workdir, "report.html")
    checkpoint.write_text(path, page(f"MoCo: {workdir}", _headline(metrics), parts))
    return path


def page(title, intro, parts):
    """A self-contained page of plain `title` and `intro`, and parts in HTML."""
    title = html.escape(title)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>"
        "body{font:16px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
        "img{max-width:100%;image-rendering:auto}pre{background:#f4f4f4;padding:1em}"
        "td{padding:0 1em 0 0}"
        f"</style><h1>{title}</h1><p>{html.escape(intro)}</p>{''.join(parts)}</html>\n"
    )


def img(png):
    """A picture in the page itself."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def png(figure):
    """A matplotlib figure as bytes."""
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def summary(workdir, step):
    """The last words of a run: what came of it, where it is, what to do next."""
    encoder, report = (os.path.join(workdir, name) for name in ("encoder.keras", "report.html"))
    metrics = read_metrics(os.path.join(workdir, "metrics.jsonl"))
    return "\n".join(
        [
            "",
            f"Trained {step} steps. {_headline(metrics)}",
            f"  checkpoint  {tf.train.latest_checkpoint(os.path.join(workdir, 'checkpoints'))}",
            f"  encoder     {encoder}",
            f"  report      {report}",
            "Next:",
            f"  open {report}; tensorboard --logdir {workdir}",
            f'  keras.models.load_model("{encoder}")   # after: import moco_tf',
            "  python train.py --config=configs/cifar10_demo.py --workdir=runs/cifar10",
        ]
    )


def _headline(metrics):
    accuracies = [(line["step"], line["knn"]) for line in metrics if "knn" in line]
    if not accuracies:
        return "No kNN monitor ran."
    text = f"kNN accuracy {accuracies[-1][1]:.1%} at step {accuracies[-1][0]}"
    if accuracies[0][0] == 0 and len(accuracies) > 1:
        text += f"; the same encoder untrained {accuracies[0][1]:.1%}"
    return text + "."


def _curves(metrics, config):
    steps = [line for line in metrics if "loss" in line]
    panels = [("loss", steps), ("top1", steps)]
    panels += [
        (name, lines)
        for name in ("knn", "queue_fill", "key_effective_rank", "learning_rate")
        if (lines := [line for line in metrics if name in line])
    ]
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(10, 2.6 * rows))
    axes = figure.subplots(rows, 2)
    for axis, (name, lines) in zip(axes.flat, panels):
        x, y = [line["step"] for line in lines], np.array([line[name] for line in lines])
        dense = len(y) > 200
        axis.plot(
            x, y, color="#1f77b4", alpha=0.3 if dense else 1, lw=1, marker="" if dense else "."
        )
        if dense:
            window = len(y) // 50
            smooth = np.convolve(y, np.ones(window) / window, "valid")
            axis.plot(x[window - 1 :], smooth, color="#1f77b4")
        if name == "loss":
            chance = config_lib.chance_loss(config)
            axis.axhline(chance, color="gray", ls=":", lw=1, label="chance, ln(K+1)")
            axis.legend()
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    return png(figure)


def _pairs(source, recipe, config):
    count = min(PAIRS, source.num_examples)
    batch = next(
        iter(
            training_dataset(
                source,
                recipe,
                Layout(count),
                image_size_px=config.data.image_size_px,
                seed=config.seed,
                jit_compile=config.data.jit_compile,
                shuffle_buffer=100,
            )
        )
    )
    pixels = [batch[name] * recipe.std + recipe.mean for name in ("x_q", "x_k")]
    return _grid([np.asarray(p) * 255 for p in pixels])


def _neighbours(images, recipe, encoder):
    x = recipe.normalize(images.astype(np.float32) / 255)
    backbone = features.backbone_of(encoder)
    bank = np.concatenate([backbone(x[i : i + 64], training=False) for i in range(0, len(x), 64)])
    bank = np.asarray(tf.math.l2_normalize(tf.cast(bank, tf.float32), axis=1))
    queries = np.linspace(0, len(images) - 1, min(QUERIES, len(images))).astype(int)
    nearest = knn.nearest(bank, bank[queries], min(NEIGHBOURS + 1, len(images)))
    return _grid([images[row] for row in nearest])


def _gallery(source, resize, size):
    """Up to GALLERY images, centre-cropped: uint8 NxSxSx3; the undecodable left out."""
    count = min(GALLERY, source.num_examples)
    if isinstance(source, Stream):
        data = source.epoch(0, 0, buffer_size=1).take(count).map(lambda r: source.parse(r)[0])
    else:
        data = (
            tf.data.Dataset.range(count)
            .map(lambda i: i * source.num_examples // count)
            .map(source.read)
            .ignore_errors()
        )
    if isinstance(source, Stream) or source.encoded:
        data = data.map(image_ops.decode).ignore_errors()
    return np.stack(
        list(data.map(lambda x: standard.center_crop(x, resize, size)).as_numpy_iterator())
    )


def _grid(rows, pad=2):
    """Rows of SxSx3 images, in 0..255, to one picture."""
    size = rows[0].shape[1]
    height, width = len(rows) * (size + pad), len(rows[0]) * (size + pad)
    picture = np.full((height, width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (size + pad), j * (size + pad)
            picture[top : top + size, left : left + size] = np.clip(np.round(image), 0, 255)
    zoom = max(1, 80 // size)
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _png(pixels):
    return tf.io.encode_png(pixels).numpy()


def main(argv):
    """Writes the report of the workdir named on the command line anew."""
    if len(argv) != 2 or not tf.io.gfile.exists(os.path.join(argv[1], "config.json")):
        sys.exit(
            "Usage: python -m moco_tf.report WORKDIR, the workdir of a train.py run. Received: "
            f"{' '.join(argv[1:]) or 'nothing'}."
        )
    workdir = argv[1]
    with tf.io.gfile.GFile(os.path.join(workdir, "config.json")) as file:
        config = schema.from_dict(config_lib.Config, json.load(file))
    recipe = addresses.resolve(recipes, config.data.recipe, "data.recipe")
    source = datasets.open_source(
        config.data.source, config.data.data_dir or None, config.data.num_examples
    )
    encoder = os.path.join(workdir, "encoder.keras")
    if not tf.io.gfile.exists(encoder):
        sys.exit(f"There is no {encoder} yet: the run writes it with its first checkpoint.")
    print(write(workdir, source, recipe, keras.models.load_model(encoder), config))


if __name__ == "__main__":
    main(sys.argv)
