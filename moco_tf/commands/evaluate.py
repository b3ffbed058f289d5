r"""Evaluates an encoder.

    python evaluate.py --task=knn|linear|linear_cached|finetune --checkpoint=WORKDIR-OR-FILE \
        --workdir=... [--config=configs/eval/....py] [--strategy=...] [--config.field=value ...]
    python evaluate.py --task=detection|segmentation --config=configs/transfer/....py \
        --checkpoint=... --workdir=... [likewise]
    python evaluate.py --task=compare --workdir=... DIR DIR ...

Without --config it takes configs/eval/TASK.py, and without sources in it, the images of the
run. The same command resumes training that was stopped; features are kept as soon as all images of
a split went through the encoder. It writes results.json and report.html to the
workdir, those that train a classifier classifier.keras, segmentation segmenter.keras, detection
detector.keras and predictions.json.
"""

import os

import tensorflow as tf
from absl import flags

from moco_tf import distribute, presets
from moco_tf.commands import config_flag, run_flags, script
from moco_tf.evaluation import report, results
from moco_tf.evaluation.task import evaluate, find
from moco_tf.training import callbacks

COMPARE = "compare"
TASK = flags.DEFINE_string(
    "task",
    None,
    f"What to do: a name, {COMPARE}, or the import path of your task, my_module:MyTask.",
    required=True,
)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run, or an encoder.keras.")


def with_config(argv):
    """The command line with the task's own config, if it names none."""
    preset = f"eval/{config_flag.given(argv, 'task')}"
    if preset not in presets.names() or config_flag.given(argv):
        return argv
    return [argv[0], f"--config={preset}", *argv[1:]]


def shown(argv):
    """The config whose fields --help shows: that of the task, if one is named."""
    task = config_flag.given(argv, "task")
    return find(task).Config() if task and task != COMPARE else None


def check(rest):
    if TASK.value == COMPARE:
        return
    script.only_flags(rest)
    task = find(TASK.value)
    if not CHECKPOINT.value:
        raise ValueError("`--checkpoint` must name the workdir of a train.py run, or an encoder.")
    task.check(run_flags.CONFIG.value)


def main(rest):
    workdir = run_flags.require_workdir()
    if TASK.value == COMPARE:
        print(report.compare(rest, workdir))
        print(f"\n{os.path.join(workdir, 'report.html')}")
        return
    task = find(TASK.value)
    config = run_flags.CONFIG.value
    strategy = run_flags.start(config)
    if task.needs_float32:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    stop = callbacks.Termination() if task.trains else lambda: False
    record = evaluate(TASK.value, config, CHECKPOINT.value, workdir, strategy, stop)
    if distribute.is_chief(strategy):
        print(f"\n{results.summary(record)}\n{os.path.join(workdir, 'report.html')}")


def run():
    """Starts the command with the arguments of the process."""
    script.run(main, check, with_config, shown)
