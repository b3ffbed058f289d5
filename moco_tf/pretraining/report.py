"""The report.html of a pre-training run: curves, augmented pairs, nearest neighbours, config."""

import json
import os
import platform
import shlex

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moco_tf import schema, storage, version
from moco_tf.backbones.encoder import Encoder
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.labelled import center_crops, normalized
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.data.sources import Source, Stream
from moco_tf.data.tfdata import examples
from moco_tf.data.two_views import KEY, QUERY
from moco_tf.pretraining import command_record, verdicts
from moco_tf.pretraining.config import Config
from moco_tf.pretraining.mechanism import chance_loss
from moco_tf.probes import knn, quality
from moco_tf.probes.features import unit
from moco_tf.reports import pages
from moco_tf.training.metrics_file import Curves, lines_of

PAIRS, QUERIES, NEIGHBOURS, GALLERY = 12, 8, 8, 1024
ALWAYS = ("loss", "top1")  # panels of every report; others if the run has them
QUALITY = ("alignment", "other_alignment", "uniformity", "effective_rank")  # without labels
PANELS = (*ALWAYS, "knn", *QUALITY, "queue_fill", "key_effective_rank", "learning_rate")
SPEED = "images_per_second"
ROWS = 16  # images at a time: a report must not need more memory than a training step


def write(
    workdir: str,
    source: Source | Stream,
    recipe: Recipe,
    recipe_k: Recipe,
    encoder: Encoder,
    config: Config,
) -> str:
    """Writes WORKDIR/report.html: curves, augmented pairs, nearest neighbours, config.

    Args:
        workdir: local or gs:// folder with a metrics.jsonl.
        source: images of the run.
        recipe: augmentation of the query views.
        recipe_k: augmentation of the key views.
        encoder: query encoder.
        config: `Config` of the run.

    Returns:
        Path of the report.
    """
    curves, scores = _read(workdir)
    size = config.data.image_size_px
    resize = config.monitor.resize_px or round(size * 8 / 7)
    count = min(GALLERY, source.num_examples)
    chosen = np.arange(count)
    if not isinstance(source, Stream):  # of a stream, the first images: others take long to reach
        chosen = chosen * source.num_examples // count
    images = center_crops(source, chosen, resize, size)
    parts = [
        _facts(workdir, curves, config),
        "<h2>Curves</h2>",
        _curves(curves, config),
        *_verdicts(curves),
        "<h2>Augmented pairs</h2><p>Each column: two views of one image.</p>",
        _pairs(source, recipe, recipe_k, config),
        "<h2>Nearest neighbours</h2><p>First column: the query; then the most similar of "
        f"{len(images)} images by the backbone's features, nearest first.</p>",
        _neighbours(images, recipe, encoder),
        pages.folded(
            "Config", f"<pre>{pages.escape(json.dumps(schema.to_dict(config), indent=2))}</pre>"
        ),
    ]
    page = pages.page(f"MoCo: {workdir}", _headline(scores), parts)
    path = os.path.join(workdir, "report.html")
    storage.write_text(path, page)
    return path


def summary(workdir: str, step: int, source: str) -> str:
    """Text at the end of a run: its result, its files, and the next commands.

    Args:
        workdir: folder of the run.
        step: steps done.
        source: address of its images.
    """
    encoder = os.path.join(workdir, "encoder.keras")
    report = os.path.join(workdir, "report.html")
    _, scores = _read(workdir)
    quoted = shlex.quote(workdir)
    folder = shlex.quote(source.removeprefix("folder:"))
    evaluation = shlex.quote(workdir.rstrip("/") + "_")
    tasks = ("knn", "linear") if scores else ("neighbours",)
    classify = (
        f"  python -m moco_tf evaluate --task=linear_cached --checkpoint={quoted} "
        f"--workdir={evaluation}classes --config.data.train=csv:LABELS.csv"
    )
    return "\n".join(
        [
            "",
            f"Trained {step} steps. {_headline(scores)}",
            f"  checkpoint  {tf.train.latest_checkpoint(os.path.join(workdir, 'checkpoints'))}",
            f"  encoder     {encoder}",
            f"  report      {report}",
            "Next:",
            f"  open {shlex.quote(report)}; tensorboard --logdir {quoted}",
            f"  moco_tf.load({workdir!r}).embed(paths)   # image files to unit-length embeddings",
            f"  keras.models.load_model({encoder!r})   # after: import moco_tf",
            *(
                [f"  python -m moco_tf embed {quoted} {folder}"]
                if source.startswith("folder:")
                else []
            ),
            *(
                f"  python -m moco_tf evaluate --task={task} --checkpoint={quoted} "
                f"--workdir={evaluation}{task}"
                for task in tasks
            ),
            *([] if scores else [f"{classify}   # FILE,LABEL a line"]),
        ]
    )


def _read(workdir):
    """Curves of a run's metrics.jsonl, and its lines with a kNN accuracy, in one pass."""
    curves, scores = Curves((*PANELS, SPEED)), []
    for line in lines_of(os.path.join(workdir, "metrics.jsonl")):
        curves.add(line)
        if "knn" in line:
            scores.append(line)
    return curves, scores


def _headline(scores):
    accuracies = [(line["step"], line["knn"]) for line in scores if "knn" in line]
    if not accuracies:
        return "No kNN monitor ran."
    text = f"kNN accuracy {accuracies[-1][1]:.1%} at step {accuracies[-1][0]}"
    if accuracies[0][0] == 0 and len(accuracies) > 1:
        text += f"; the same encoder untrained {accuracies[0][1]:.1%}"
    last = scores[[line["step"] for line in scores].index(accuracies[-1][0])]
    if "knn_chance" in last:
        text += f" ({last['knn_classes']:.0f} classes, chance {last['knn_chance']:.1%})"
    return text + "."


def _facts(workdir, curves, config):
    """A table of what was trained, by which commands, for how long, and by which versions."""
    steps, _ = curves.points("loss")
    rows = [["command", command] for command in command_record.read(workdir)]
    rows += [["images", config.data.source], ["steps", f"{int(max(steps, default=0)):,}"]]
    if seconds := training_seconds(curves, config.batch_size):
        rows.append(["training", f"about {seconds / 60:.1f} minutes, without evaluations"])
    versions = {"moco_tf": version.VERSION, "TensorFlow": tf.__version__}
    versions |= {"Keras": keras.__version__, "Python": platform.python_version()}
    rows.append(["versions", ", ".join(f"{name} {number}" for name, number in versions.items())])
    return pages.table(["", ""], rows)


def training_seconds(curves: Curves, batch_size: int) -> float:
    """Time of all steps by the logged images per second; 0 if none were logged."""
    steps, speeds = curves.points(SPEED)
    return float(np.sum(np.diff(steps, prepend=0) * batch_size / speeds))


def _curves(curves, config):
    """A figure for each curve, and below it what it should look like: red where it does not."""
    points = {name: curves.points(name) for name in PANELS}
    shown = [name for name in PANELS if name in ALWAYS or len(points[name][0])]
    items = []
    for name in shown:
        verdict = verdicts.judge(name, *points[name], config)
        chance = chance_loss(config) if name == "loss" else None
        picture = _curve(name, *points[name], chance)
        items.append(
            pages.captioned(picture, verdict.text, verdict.is_good) if verdict else picture
        )
    return pages.columns(items)


def _curve(name, x, y, chance):
    """A figure of one curve, smoothed if it is long, with a dotted line at chance if given."""
    figure = Figure(figsize=(5, 2.6))
    axis = figure.subplots()
    dense = len(y) > 200
    axis.plot(x, y, color="#1f77b4", alpha=0.3 if dense else 1, lw=1, marker="" if dense else ".")
    if dense:
        window = len(y) // 50
        smooth = np.convolve(y, np.ones(window) / window, "valid")
        axis.plot(x[window - 1 :], smooth, color="#1f77b4")
    if chance is not None:
        axis.axhline(chance, color="gray", ls=":", lw=1, label="chance, ln(K+1)")
        axis.legend()
    axis.set(title=name, xlabel="step")
    axis.grid(alpha=0.3)
    return pages.figure(figure)


def _verdicts(curves):
    """What the curves of a run without labels say, a paragraph each."""
    points = {name: curves.points(name)[1] for name in QUALITY}
    if not all(len(y) for y in points.values()):
        return []
    first, last = ({name: float(y[i]) for name, y in points.items()} for i in (0, -1))
    return [f"<p>{pages.escape(sentence)}</p>" for sentence in quality.verdicts(first, last)]


def _pairs(source, recipe, recipe_k, config):
    """Pictures of two views of some images: made one by one, since a pipeline costs seconds."""
    count = min(PAIRS, source.num_examples)
    data = examples(source, BatchLayout(count), seed=config.seed, shuffle_buffer=100)
    rows = [[], []]
    for example in data.unbatch().take(count):
        try:
            image = source.image(example["key"])
        except tf.errors.OpError:
            continue  # training has counted it and named it
        for row, view_recipe, view in ((rows[0], recipe, QUERY), (rows[1], recipe_k, KEY)):
            draws = view_recipe.draw(config.seed, example["slot"], view)
            crop = view_recipe.geometry(image, draws, config.data.image_size_px)
            x = view_recipe.photometric(crop[None], draws[None])[0]
            row.append(255 * np.asarray(x * view_recipe.std + view_recipe.mean))
    return pages.grid(rows) if rows[0] else "<p>None of them can be decoded.</p>"


def _neighbours(images, recipe, encoder):
    # As a graph: eagerly, a Keras model holds the outputs of all its layers until its end.
    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None, *images.shape[1:]], tf.uint8)]
    )
    def features(x):
        return tf.cast(encoder.backbone(normalized(recipe, x), training=False), tf.float32)

    blocks = (images[i : i + ROWS] for i in range(0, len(images), ROWS))
    bank = unit(np.concatenate([features(block).numpy() for block in blocks]))
    queries = np.linspace(0, len(images) - 1, min(QUERIES, len(images))).astype(int)
    _, nearest = knn.nearest(bank, bank[queries], NEIGHBOURS + 1, block=len(queries))
    grid = pages.grid([images[row] for row in nearest])
    if len(images) < 2:
        return grid
    return (
        f"{grid}<p>{quality.near_duplicates(bank):.1%} of the images have a near-duplicate among "
        f"the others, with a cosine of at least {quality.NEAR_DUPLICATE}. If these are no copies, "
        "the encoder tells images apart badly.</p>"
    )
