r"""Pre-trains an encoder with MoCo.

    python train.py --config=configs/moco_v2.py --workdir=runs/v2 [--strategy=...] \
        [--init=WORKDIR-OR-FILE] [--config.field=value ...]

The same command resumes a run that was stopped. It writes to the workdir:
checkpoints/, encoder.keras, metrics.jsonl, tensorboard/ and report.html.
"""

from absl import flags

from moco_tf import distribute, warm_start
from moco_tf.commands import run_flags, script
from moco_tf.commands.signals import STOP
from moco_tf.pretraining import config, report
from moco_tf.pretraining.run import pretrain

INIT = flags.DEFINE_string(
    "init",
    None,
    "What a new run starts from, with a schedule of its own: the workdir of a run or one of its "
    "checkpoints (encoders and queue), an encoder.keras or a PyTorch file.",
)


def check(rest):
    script.only_flags(rest)
    if not isinstance(run_flags.CONFIG.value, config.Config):
        raise ValueError("`--config` must be a config of train.py, such as configs/quickstart.py.")
    config.check(run_flags.CONFIG.value)


def main(_):
    workdir, run_config = run_flags.require_workdir(), run_flags.CONFIG.value
    strategy = run_flags.start(run_config)
    init = warm_start.init(INIT.value) if INIT.value else None
    step = pretrain(run_config, workdir, strategy, STOP.listen(), init)
    if distribute.is_chief(strategy):
        print(report.summary(workdir, step))


def run():
    """Starts the command with the arguments of the process."""
    script.run(main, check, shown=lambda argv: config.Config())
