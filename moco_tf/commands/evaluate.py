r"""Evaluates an encoder: kNN, linear classification, fine-tuning, detection, segmentation.

    python evaluate.py --task=knn|linear|linear_cached|finetune --checkpoint=WORKDIR-OR-FILE \
        --workdir=... [--config=configs/eval/....py] [--strategy=...] [--config.field=value ...]
    python evaluate.py --task=detection|segmentation --config=configs/transfer/....py \
        --checkpoint=... --workdir=... [--strategy=...] [--config.field=value ...]
    python evaluate.py --task=compare --workdir=... DIR DIR ...

The default --config is configs/eval/TASK.py. Without sources in the config, the images are those of
the pre-training run. The same command resumes training that was stopped. Features are saved once
all images of a split went through the encoder.

All tasks write results.json and report.html to the workdir. Tasks that train a classifier add
classifier.keras, segmentation adds segmenter.keras, detection detector.keras and predictions.json.
"""

import os
import shlex
from typing import Any

from absl import flags

from moco_tf import distribute, presets
from moco_tf.commands import config_flag, run_flags, script
from moco_tf.commands.signals import STOP
from moco_tf.evaluation import report, results
from moco_tf.evaluation.task import evaluate, find

COMPARE = "compare"
SERVED = ("linear", "linear_cached", "finetune", "detection")  # tasks whose result can be exported
TASK = flags.DEFINE_string(
    "task",
    None,
    f"Name of a task, {COMPARE}, or the import path of your task, my_module:MyTask.",
    required=True,
)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run, or an encoder.keras.")


def with_config(argv: list[str]) -> list[str]:
    """The command line, with the task's default config if it names none."""
    preset = f"eval/{config_flag.given(argv, 'task')}"
    if preset not in presets.names() or config_flag.given(argv):
        return argv
    return [argv[0], f"--config={preset}", *argv[1:]]


def shown(argv: list[str]) -> Any:
    """The config whose fields --help shows: the task's, or None if no task is named."""
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
    stop = STOP.listen() if task.trains else lambda: False
    record = evaluate(TASK.value, config, CHECKPOINT.value, workdir, strategy, stop)
    if distribute.is_chief(strategy):
        print(f"\n{results.summary(record)}\n{os.path.join(workdir, 'report.html')}")
        if TASK.value in SERVED:
            print(next_command(workdir))


def next_command(workdir: str) -> str:
    """Text that names the command for what an evaluation has trained."""
    folder = shlex.quote(workdir)
    output = shlex.quote(os.path.join(workdir, "served"))
    command = f"python -m moco_tf export --format=savedmodel --checkpoint={folder}"
    return f"Next:\n  {command} --output={output}"


def run():
    """Starts the command with the arguments of the process."""
    script.run(main, check, with_config, shown)
