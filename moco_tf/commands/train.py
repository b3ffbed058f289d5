r"""Pre-trains an encoder with MoCo.

    python train.py --config=configs/moco_v2.py --workdir=runs/v2 [--strategy=...] \
        [--init=WORKDIR-OR-FILE] [--config.field=value ...]

    python -m moco_tf train FOLDER [--minutes=20] [--config.field=value ...]

The second form is for images of your own: sizes that are not given are chosen by their number, the
machine and the minutes, and logged; the workdir is runs/ and the folder's name. FOLDER is also any
address of a source, such as tfrecord:GLOB.

The same command resumes a run that was stopped. It writes to the workdir:
checkpoints/, encoder.keras, metrics.jsonl, tensorboard/ and report.html.
"""

import itertools
import json
import os

import tensorflow as tf
from absl import flags

from moco_tf import distribute, encoders, schema, warm_start
from moco_tf.commands import config_flag, run_flags, script
from moco_tf.commands.signals import STOP
from moco_tf.log import log
from moco_tf.pretraining import config, own_images, report
from moco_tf.pretraining.run import pretrain
from moco_tf.training.checkpoint import CONFIG, is_new_workdir

INIT = flags.DEFINE_string(
    "init",
    None,
    "What a new run starts from, with a schedule of its own: the workdir of a run or one of its "
    "checkpoints (encoders and queue), an encoder.keras or a PyTorch file.",
)


MINUTES = flags.DEFINE_float(
    "minutes",
    None,
    "About how long the run may take: image size, batch, epochs and others are chosen to fit.",
    lower_bound=0.1,
)
DEFAULT_MINUTES = 20


def with_address(argv: list[str]) -> list[str]:
    """The command line with the flags that FOLDER, its only positional argument, stands for."""
    pairs = itertools.pairwise(argv)
    words = [b for a, b in pairs if not b.startswith("-") and not _waits_for_value(a)]
    if len(words) != 1:
        return argv
    (word,) = words
    address = word if ":" in word else f"folder:{word}"
    others = [argument for argument in argv[1:] if argument != word]
    more = [f"--config.data.source={address}"]
    if not config_flag.given(argv):
        others.insert(0, f"--config={'moco_v2' if _has_gpu() else 'own_images'}")
        if not config_flag.given(argv, "minutes"):
            more.append(f"--minutes={DEFAULT_MINUTES}")
    if not config_flag.given(argv, "workdir"):
        name = os.path.basename(address.partition(":")[2].rstrip("/")) or "images"
        more.append(f"--workdir=runs/{name}")
    return [argv[0], *others, *more]  # overrides of fields come after --config


def _waits_for_value(argument):
    """Whether an argument is a flag whose value is the next argument."""
    name, sign, _ = argument.lstrip("-").partition("=")
    is_flag = argument.startswith("-") and not sign
    return is_flag and not (name in flags.FLAGS and flags.FLAGS[name].boolean)


def _has_gpu():
    return bool(tf.config.list_physical_devices("GPU"))


def check(rest):
    script.only_flags(rest)
    if not isinstance(run_flags.CONFIG.value, config.Config):
        raise ValueError("`--config` must be a config of train.py, such as configs/quickstart.py.")
    if MINUTES.value is None:
        config.check(run_flags.CONFIG.value)


def main(_):
    workdir, run_config = run_flags.require_workdir(), run_flags.CONFIG.value
    strategy = run_flags.start(run_config)
    if MINUTES.value is not None:
        run_config = _chosen(run_config, workdir, strategy)
        config.check(run_config)
    init = warm_start.init(INIT.value) if INIT.value else None
    step = pretrain(run_config, workdir, strategy, STOP.listen(), init, script.typed())
    if distribute.is_chief(strategy):
        print(report.summary(workdir, step, run_config.data.source))


def _chosen(run_config, workdir, strategy):
    """The config with chosen sizes; in a workdir with a checkpoint, those that it was made by."""
    given = config_flag.overrides()
    if is_new_workdir(workdir):
        if INIT.value:
            _take_backbone(run_config, INIT.value, given)
        own_images.choose(run_config, set(given), MINUTES.value, strategy, INIT.value)
        return run_config
    with tf.io.gfile.GFile(os.path.join(workdir, CONFIG)) as file:
        run_config = config.from_json(json.load(file))
    for name, value in given.items():
        schema.override(run_config, name, value)
    log.info("Sizes are those of %s, whose run is resumed.", workdir)
    return run_config


def _take_backbone(run_config, path, given):
    """Sets the backbone of a config to that of a run, if `path` is of one and has another."""
    start = encoders.load(path).run
    if start is None:
        return
    for name in ("backbone", "backbone_options", "stem", "width"):
        value = getattr(start.model, name)
        if f"model.{name}" not in given and value != getattr(run_config.model, name):
            setattr(run_config.model, name, value)
            log.info("--config.model.%s=%s, as in the run of --init", name, value)


def run():
    """Starts the command with the arguments of the process."""
    script.run(main, check, with_address, shown=lambda argv: config.Config())
