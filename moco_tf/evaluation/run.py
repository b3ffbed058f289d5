"""An evaluation, from its config to results.json and report.html."""

import os
import time

import tensorflow as tf

from moco_tf import distribute, schema, storage
from moco_tf.evaluation import context, report, results, supervised, tasks
from moco_tf.reports import pages
from moco_tf.training import checkpoint


def evaluate(task, config, encoder, workdir, strategy, stop=lambda: False):
    """Runs or resumes an evaluation.

    Args:
        task: name in `config.TASKS`.
        config: checked, of the task.
        encoder: workdir of a pre-training run, or an encoder's .keras file.
        workdir: folder of the evaluation, local or gs://.
        strategy: of `strategies.make_strategy`.
        stop: function that says whether to stop early; asked by tasks that train step by step.

    Returns:
        What results.json holds.

    Raises:
        loop.Stopped: if it was asked to stop before the end.
    """
    began = time.time()
    parts = context.prepare(config, encoder, workdir, strategy)
    chief = distribute.is_chief(strategy)
    # What is refused is refused before the workdir is claimed.
    if task == "linear_cached":
        tasks.check_sweep(parts)
    training = supervised.prepare(parts) if task in ("linear", "finetune") else ()
    made_by = {"task": task, "encoder": parts.loaded.digest, **schema.to_dict(config)}
    checkpoint.claim_workdir(made_by, workdir, strategy)
    if task == "knn":
        outcome = tasks.run_knn(parts)
    elif task == "linear_cached":
        outcome = tasks.run_linear_cached(parts)
    else:
        outcome = supervised.run_supervised(parts, *training, stop)
    found = results.record(
        *(task, config, parts.loaded, began),
        metrics=results.measure(outcome.scores, outcome.labels),
        protocol=outcome.protocol,
        details=outcome.details,
        data={
            "train": parts.pair.addresses[0],
            "test": parts.pair.addresses[1],
            "train_images": parts.pair.train.num_examples,
            "test_images": len(outcome.labels),
            "classes": parts.pair.num_classes,
            "class_names": list(parts.pair.classes),
        },
    )
    if chief:
        results.write(workdir, found)
        crop = (parts.crop.resize_px, parts.crop.image_size_px)
        report.write(workdir, found, outcome, parts.pair, crop)
    return found


def compare(workdirs, workdir):
    """Writes the comparison of several evaluations to a workdir; returns it as Markdown.

    Raises:
        ValueError: for fewer than two, or one without results.
    """
    if len(workdirs) < 2:
        raise ValueError(
            "`--task=compare` needs the workdirs of two or more evaluations. Received: "
            f"{', '.join(workdirs) or 'none'}."
        )
    table = pages.markdown(*results.compare(workdirs))
    tf.io.gfile.makedirs(workdir)
    storage.write_text(os.path.join(workdir, "table.md"), table + "\n")
    report.write_comparison(workdir, workdirs)
    return table
