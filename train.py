"""Pre-trains an encoder with MoCo.

    python train.py --config=configs/moco_v2.py --workdir=runs/v2 [--strategy=...] \
        [--config.field=value ...]

The same command resumes a run that was stopped. Everything it writes is in the workdir:
checkpoints/, encoder.keras, metrics.jsonl, tensorboard/ and report.html.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow starts to speak

from moco_tf import callbacks, config, distribute, report, run_flags, script
from moco_tf.pretraining import pretrain


def check(rest):
    script.only_flags(rest)
    if not isinstance(run_flags.CONFIG.value, config.Config):
        raise ValueError("`--config` must name a recipe, such as configs/quickstart.py.")
    config.check(run_flags.CONFIG.value)


def main(_):
    workdir, recipe = run_flags.require_workdir(), run_flags.CONFIG.value
    strategy = run_flags.start(recipe)
    step, finished = pretrain(recipe, workdir, strategy, stop=callbacks.Termination())
    if not finished:
        script.stopped(step)
    if distribute.is_chief(strategy):
        print(report.summary(workdir, step))


if __name__ == "__main__":
    script.run(main, check)
