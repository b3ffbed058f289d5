r"""Pre-trains the variants of an ablation in turn, and shows what came of them side by side.

    python -m moco_tf ablate --config=configs/ablations/momentum.py --workdir=runs/ablate_momentum \
        [--strategy=...] [--config.base.field=value ...]

Each variant is a run as of train.py, in a folder of its own in the workdir. Beside them are
table.md, results.json and report.html, written anew after each. The same command resumes.
"""

import gc
import json
import os

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moco_tf import distribute, presets, schema, storage
from moco_tf.commands import run_flags, script
from moco_tf.log import log
from moco_tf.pretraining.ablation import variants
from moco_tf.pretraining.mechanism import chance_loss
from moco_tf.pretraining.run import pretrain
from moco_tf.reports import pages
from moco_tf.training import callbacks, checkpoint

LAST = 20  # steps whose mean is the final loss
NOTES = {
    "diverged": "the loss became infinite or no number, which ended the run",
    "at chance": "the loss ended within 1 % of ln(K+1): the encoder tells no image from another",
}


def ablate(ablation, workdir, strategy, stop=lambda: False):
    """Runs or resumes the variants of an ablation.

    Args:
        ablation: `Ablation`.
        workdir: folder of all, local or gs://.
        strategy: of `strategies.make_strategy`.
        stop: function that says whether to stop early.

    Raises:
        loop.Stopped: if it was asked to stop before the end, with the step of its variant.
    """
    configs = variants(ablation)
    for name, config in configs.items():  # all that is refused is refused before any work
        checkpoint.check_workdir(schema.to_dict(config), os.path.join(workdir, name))
    results = _read(workdir)
    for number, (name, config) in enumerate(configs.items(), start=1):
        if results.get(name, {}).get("config") == schema.to_dict(config):
            log.info("Variant %s (%d of %d) is there already.", name, number, len(configs))
            continue
        log.info("Variant %s (%d of %d)", name, number, len(configs))
        folder, diverged = os.path.join(workdir, name), False
        try:
            pretrain(config, folder, strategy, stop)
        except FloatingPointError as error:  # which is a result, too
            log.warning("Variant %s diverged. %s", name, error)
            diverged = True
        keras.backend.clear_session()
        gc.collect()
        if distribute.is_chief(strategy):
            results[name] = _result(config, folder, diverged)
            _write(ablation.title, {n: results[n] for n in configs if n in results}, workdir)


def _result(config, folder, diverged):
    """What is left of a run: dict of knn (list of [step, share]), loss, seconds, note, config."""
    metrics = callbacks.read_metrics(os.path.join(folder, "metrics.jsonl"))
    losses = [line["loss"] for line in metrics if "loss" in line]
    rounds = [line for line in metrics if "images_per_second" in line]
    steps = np.diff([0, *(line["step"] for line in rounds)])
    speed = np.array([line["images_per_second"] for line in rounds])
    loss = None if diverged else float(np.mean(losses[-LAST:]))
    note = "diverged" if diverged else ""
    if loss is not None and abs(loss - chance_loss(config)) < 0.01 * chance_loss(config):
        note = "at chance"
    return {
        "knn": [[line["step"], line["knn"]] for line in metrics if "knn" in line],
        "loss": loss,
        "seconds": float(np.sum(steps * config.batch_size / speed)),
        "note": note,
        "config": schema.to_dict(config),
    }


def _read(workdir):
    path = os.path.join(workdir, "results.json")
    if not tf.io.gfile.exists(path):
        return {}
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)


def _write(title, results, workdir):
    """Writes results.json, table.md and report.html."""
    head, rows, text = _table(results)
    parts = [
        pages.table(head, rows),
        _plots(results),
        "<h2>Configs</h2>",
        *(
            f"<h3>{name}</h3><pre>{pages.escape(json.dumps(result['config'], indent=2))}</pre>"
            for name, result in results.items()
        ),
    ]
    page = pages.page(title, text, parts)
    markdown = pages.markdown(head, rows)
    # The results last: what they name is not run again.
    for name, content in (
        ("table.md", f"# {title}\n\n{markdown}\n\n{text}\n"),
        ("report.html", page),
        ("results.json", json.dumps(results, indent=2) + "\n"),
    ):
        storage.write_text(os.path.join(workdir, name), content)


def _table(results):
    """Head and rows of the table, lists of str, and the text below."""
    head = ["variant", "kNN at the end", "best kNN", "final loss", "training, s", "note"]
    rows = []
    for name, result in results.items():
        knn = [accuracy for step, accuracy in result["knn"] if step > 0]
        rows.append(
            [
                name,
                f"{knn[-1]:.1%}" if knn and result["note"] != "diverged" else "-",
                f"{max(knn):.1%}" if knn else "-",
                "-" if result["loss"] is None else f"{result['loss']:.3f}",
                f"{result['seconds']:.0f}",
                result["note"],
            ]
        )
    before = [result["knn"][0][1] for result in results.values() if result["knn"]]
    text = [f"The final loss is the mean of the last {LAST} steps."]
    if before:
        limits = dict.fromkeys(f"{accuracy:.1%}" for accuracy in (min(before), max(before)))
        text = [f"kNN before training: {' to '.join(limits)}.", *text]
    noted = [n for n in NOTES if any(r["note"] == n for r in results.values())]
    return head, rows, " ".join(text + [f"{n.capitalize()}: {NOTES[n]}." for n in noted])


def _plots(results):
    """Accuracy over the steps, a curve a variant, and at the end, a bar a variant."""
    figure = Figure(figsize=(10, 3.6))
    curves, bars = figure.subplots(1, 2)
    for name, result in results.items():
        points = np.array(result["knn"]).reshape(-1, 2)
        curves.plot(points[:, 0], points[:, 1], marker=".", label=name)
        height = points[-1:, 1].sum()  # 0 without a point
        bars.bar_label(bars.bar(name, height), [f"{height:.1%} {result['note']}".strip()])
    curves.set(title="kNN accuracy", xlabel="step")
    curves.legend()
    bars.set(title="at the end")
    bars.margins(y=0.1)
    for axis in (curves, bars):
        axis.grid(alpha=0.3)
    return pages.figure(figure)


def check(rest):
    """Refuses what cannot be an ablation, before any work."""
    script.only_flags(rest)
    if not hasattr(run_flags.CONFIG.value, "runs"):  # raises for a file that is not there
        raise ValueError("`--config` must name an ablation, such as configs/ablations/momentum.py.")
    variants(run_flags.CONFIG.value)


def main(_):
    """The command."""
    workdir, ablation = run_flags.require_workdir(), run_flags.CONFIG.value
    strategy = run_flags.start(ablation.base)
    ablate(ablation, workdir, strategy, stop=callbacks.Termination())
    if distribute.is_chief(strategy):
        with tf.io.gfile.GFile(os.path.join(workdir, "table.md")) as file:
            print(f"\n{file.read()}\n  report  {os.path.join(workdir, 'report.html')}")


def run():
    """Starts the command with the arguments of the process."""
    script.run(main, check, shown=lambda argv: presets.load("ablations/momentum"))
