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

from moco_tf import distribute
from moco_tf.commands import config_flag, run_flags, script
from moco_tf.detection import config as detection
from moco_tf.detection.task import detect
from moco_tf.evaluation import config, results
from moco_tf.evaluation.run import compare, evaluate
from moco_tf.segmentation import config as segmentation
from moco_tf.segmentation.task import segment
from moco_tf.training import callbacks

TRANSFER = {"detection": (detection.check, detect), "segmentation": (segmentation.check, segment)}
TASKS = [*config.TASKS, *TRANSFER, "compare"]
TASK = flags.DEFINE_enum("task", None, TASKS, "What to do.", required=True)
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Workdir of a run, or an encoder.keras.")


def with_config(argv):
    """The command line with the task's own config, if it names none."""
    task = config_flag.given(argv, "task")
    if task not in config.TASKS or config_flag.given(argv):
        return argv
    return [argv[0], f"--config=eval/{task}", *argv[1:]]


def shown(argv):
    """The config whose fields --help shows: that of the task, if one is named."""
    transfer = {"detection": detection.Detection, "segmentation": segmentation.Segmentation}
    make = (config.TASKS | transfer).get(config_flag.given(argv, "task"))
    return make() if make else None


def check(rest):
    if TASK.value == "compare":
        return
    script.only_flags(rest)
    if not CHECKPOINT.value:
        raise ValueError("`--checkpoint` must name the workdir of a train.py run, or an encoder.")
    if TASK.value in TRANSFER:
        TRANSFER[TASK.value][0](run_flags.CONFIG.value)
    else:
        config.check(run_flags.CONFIG.value, TASK.value)


def main(rest):
    workdir = run_flags.require_workdir()
    if TASK.value == "compare":
        print(compare(rest, workdir))
        print(f"\n{os.path.join(workdir, 'report.html')}")
        return
    strategy = run_flags.start(run_flags.CONFIG.value)
    if TASK.value in ("knn", "linear_cached"):  # NVIDIA's short floats would find other neighbours
        tf.config.experimental.enable_tensor_float_32_execution(False)
    steps = TASK.value in ("linear", "finetune", *TRANSFER)
    stop = {"stop": callbacks.Termination()} if steps else {}
    parts = (run_flags.CONFIG.value, CHECKPOINT.value, workdir, strategy)
    if TASK.value in TRANSFER:
        found = TRANSFER[TASK.value][1](*parts, **stop)
    else:
        found = evaluate(TASK.value, *parts, **stop)
    if distribute.is_chief(strategy):
        print(f"\n{results.summary(found)}\n{os.path.join(workdir, 'report.html')}")


def run():
    """Starts the command with the arguments of the process."""
    script.run(main, check, with_config, shown)
