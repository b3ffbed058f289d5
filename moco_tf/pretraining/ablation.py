"""Ablations: variants of a run that differ in a few fields, trained and compared.

A file in configs/ablations/ sets title, base and runs; `--config.base.field=value` overrides
the base.
"""

import collections
import copy
import gc
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from moco_tf import distribute, presets, schema, storage
from moco_tf.log import log
from moco_tf.pretraining import config as config_lib
from moco_tf.pretraining.config import Config
from moco_tf.pretraining.mechanism import chance_loss
from moco_tf.pretraining.run import pretrain
from moco_tf.reports import pages
from moco_tf.training import checkpoint, metrics_file

BASES = {"fabrics": "quickstart", "cifar10": "cifar10_demo"}  # configs by their data
LAST = 20  # steps whose mean is the final loss
NOTES = {
    "diverged": "the loss became infinite or NaN, which ended the run",
    "at chance": "the loss ended within 1 % of ln(K+1): the encoder cannot tell images apart",
}


@dataclass
class Ablation:
    """A run and its variants.

    Attributes:
        title: title of the report.
        base: `Config` that the variants change.
        runs: overrides of each variant by its name, such as {"m0.9": {"model.momentum": 0.9}};
            the name is also that of its folder.
    """

    title: str
    base: Config
    runs: dict


def variants(ablation: Ablation) -> dict[str, Config]:
    """The complete configs of the variants, by name.

    Raises:
        ValueError: for an invalid name or field, with the name of the variant.
    """
    configs = {}
    for name, overrides in ablation.runs.items():
        if not re.fullmatch(r"[\w=.-]*\w", name):
            raise ValueError(
                "The name of a variant must be letters, digits, '_', '=', '.' and '-', because it "
                f"is also the name of a folder. Received: {name!r}."
            )
        config = copy.deepcopy(ablation.base)
        try:
            for field, value in overrides.items():
                schema.override(config, field, value)
            config_lib.check(config)
        except ValueError as error:
            raise _variant_error(name, error) from None
        configs[name] = config
    return configs


def _variant_error(name, error):
    """The error of a variant; its fields are named as flags of the ablation, --config.base.x."""
    return ValueError(f"Variant {name!r}: {str(error).replace('--config.', '--config.base.')}")


def base(data: str) -> Config:
    """The base run of the files in configs/ablations: that of a shipped config.

    Args:
        data: "fabrics", the quickstart on generated images, for minutes on a CPU, or "cifar10",
            the CIFAR-10 demo.

    Raises:
        KeyError: for other data. A ValueError would show ml_collections' traceback.
    """
    if data not in BASES:
        raise KeyError(
            f"The data of these ablations must be {' or '.join(BASES)}. Received: {data!r}. Use "
            "--config=FILE or --config=FILE:cifar10."
        )
    config = presets.load(BASES[data])
    if data == "cifar10":
        config.monitor.every_epochs = 10  # of 200
    return config


def ablate(
    ablation: Ablation,
    workdir: str,
    strategy: tf.distribute.Strategy,
    stop: Callable[[], bool] = lambda: False,
):
    """Runs or resumes the variants of an ablation.

    Args:
        ablation: base run and variants.
        workdir: folder of the ablation, local or gs://; each variant has a folder in it.
        strategy: strategy from `strategies.make_strategy`.
        stop: function that says whether to stop early.

    Raises:
        ValueError: if a variant cannot run, with its name.
        loop.Stopped: if it was asked to stop before the end, with the step of its variant.
    """
    configs = variants(ablation)
    for name, config in configs.items():  # check all variants before any work
        try:
            checkpoint.check_workdir(schema.to_dict(config), os.path.join(workdir, name))
        except ValueError as error:
            raise _variant_error(name, error) from None
    results = _read(workdir)
    for number, (name, config) in enumerate(configs.items(), start=1):
        if results.get(name, {}).get("config") == schema.to_dict(config):
            log.info("Variant %s (%d of %d) already has results.", name, number, len(configs))
            continue
        log.info("Variant %s (%d of %d)", name, number, len(configs))
        folder, diverged = os.path.join(workdir, name), False
        try:
            pretrain(config, folder, strategy, stop)
        except ValueError as error:
            raise _variant_error(name, error) from error
        except FloatingPointError as error:  # a divergence is a result, too
            log.warning("Variant %s diverged. %s", name, error)
            diverged = True
        keras.backend.clear_session()
        gc.collect()
        if distribute.is_chief(strategy):
            results[name] = _result(config, folder, diverged)
            _write(ablation.title, {n: results[n] for n in configs if n in results}, workdir)


def _result(config, folder, diverged):
    """Results of a run: dict of knn (list of [step, share]), loss, seconds, note, config."""
    losses, rounds, knn = collections.deque(maxlen=LAST), [], []
    for line in metrics_file.lines_of(os.path.join(folder, "metrics.jsonl")):
        if "loss" in line:
            losses.append(line["loss"])
        if "images_per_second" in line:
            rounds.append(line)
        if "knn" in line:
            knn.append([line["step"], line["knn"]])
    steps = np.diff([0, *(line["step"] for line in rounds)])
    speed = np.array([line["images_per_second"] for line in rounds])
    loss = None if diverged else float(np.mean(losses))
    note = "diverged" if diverged else ""
    if loss is not None and abs(loss - chance_loss(config)) < 0.01 * chance_loss(config):
        note = "at chance"
    return {
        "knn": knn,
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
    # results.json is written last, because the variants in it are not run again.
    for name, content in (
        ("table.md", f"# {title}\n\n{markdown}\n\n{text}\n"),
        ("report.html", page),
        ("results.json", json.dumps(results, indent=2) + "\n"),
    ):
        storage.write_text(os.path.join(workdir, name), content)


def _table(results):
    """Header and rows of the table, lists of str, and the text below it."""
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
    untrained = [result["knn"][0][1] for result in results.values() if result["knn"]]
    text = [f"The final loss is the mean of the last {LAST} steps."]
    if untrained:
        limits = dict.fromkeys(f"{accuracy:.1%}" for accuracy in (min(untrained), max(untrained)))
        text = [f"kNN before training: {' to '.join(limits)}.", *text]
    noted = [n for n in NOTES if any(r["note"] == n for r in results.values())]
    return head, rows, " ".join(text + [f"{n.capitalize()}: {NOTES[n]}." for n in noted])


def _plots(results):
    """kNN accuracy of each variant: a curve over the steps, and a bar for the end."""
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
