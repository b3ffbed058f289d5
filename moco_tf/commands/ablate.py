r"""Ablation: pre-trains variants of a run one after the other, and compares their results.

    python -m moco_tf ablate --config=configs/ablations/momentum.py --workdir=runs/ablate_momentum \
        [--strategy=...] [--config.base.field=value ...]

Each variant is a run as by train.py, in its folder of the workdir. table.md, results.json and
report.html are updated after each variant. The same command resumes.
"""

import os

import tensorflow as tf

from moco_tf import distribute, presets
from moco_tf.commands import run_flags, script
from moco_tf.commands.signals import STOP
from moco_tf.pretraining.ablation import ablate, variants


def check(rest):
    """Refuses a config that is no valid ablation, before any work."""
    script.only_flags(rest)
    if not hasattr(run_flags.CONFIG.value, "runs"):  # raises if the file does not exist
        raise ValueError("`--config` must name an ablation, such as configs/ablations/momentum.py.")
    variants(run_flags.CONFIG.value)


def main(_):
    """The command."""
    workdir, ablation = run_flags.require_workdir(), run_flags.CONFIG.value
    strategy = run_flags.start(ablation.base)
    ablate(ablation, workdir, strategy, stop=STOP.listen())
    if distribute.is_chief(strategy):
        with tf.io.gfile.GFile(os.path.join(workdir, "table.md")) as file:
            print(f"\n{file.read()}\n  report  {os.path.join(workdir, 'report.html')}")


def run():
    """Starts the command with the arguments of the process."""
    script.run(main, check, shown=lambda argv: presets.load("ablations/momentum"))
