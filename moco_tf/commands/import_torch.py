r"""Imports a PyTorch checkpoint as a workdir. PyTorch need not be installed.

    python -m moco_tf import_torch FILE --output=WORKDIR \
        [--config=configs/moco_v2.py --config.field=value ...]

The file may be of the official MoCo, lightly, solo-learn, mmselfsup or mmpretrain, a ResNet with
torchvision's names, or a ViT of MoCo v3. If it has a key encoder, train.py can resume the workdir,
with the config given here or, without one, that of MoCo v1 or v2 on ImageNet. No code in the file
is executed.
"""

import math
import shlex
import sys

from absl import flags

from moco_tf import interop, schema
from moco_tf.commands import config_flag, script
from moco_tf.interop.training_state import standard_config
from moco_tf.pretraining import config as config_lib

FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags; not at import, so that commands with other flags can import this."""
    config_flag.define("Config file with which training continues.")
    flags.DEFINE_string("output", None, "Folder to make, local or gs://.", required=True)


def check(rest):
    """Refuses wrong arguments."""
    if len(rest) != 1:
        raise ValueError(f"Name one file to import. Received: {' '.join(rest) or 'none'}.")
    if FLAGS.config and not isinstance(FLAGS.config, config_lib.Config):
        raise ValueError("`--config` must be a config of train.py, such as configs/moco_v2.py.")


def main(rest):
    """The command."""
    imported = interop.import_torch(rest[0], FLAGS.output, FLAGS.config)
    output = shlex.quote(FLAGS.output)
    print(f"{imported.backbone}, saved by {imported.scheme}, is in {FLAGS.output}.")
    if imported.config:
        given = shlex.join(arg for arg in sys.argv[1:] if arg.startswith("--config"))
        flags_ = given or _flags(imported.config)
        print(
            f"  continue training from step {imported.step}: "
            f"python train.py --workdir={output} {flags_}"
        )
        if imported.epoch >= (imported.config.length.epochs or math.inf):
            print(
                f"  This config has no epochs left after the file's {imported.epoch}. To train "
                "longer with a schedule of its own, start a new workdir from it: "
                f"python train.py --init={output} --workdir=... --config=..."
            )
    print(
        f"  evaluate: python evaluate.py --task=knn --checkpoint={output} --workdir=... "
        "--config.data.train=... --config.data.test=..."
    )


def _flags(config):
    """The flags of train.py that give the config of an import without one."""
    version = {"linear": "v1", "mlp": "v2"}[config.model.head]
    standard = schema.to_dict(standard_config(config.model.head))
    fields = [d.partition(":")[0] for d in schema.differences(standard, schema.to_dict(config))]
    values = [f"--config.{name}={_value(config, name)}" for name in fields]
    return " ".join([f"--config=configs/moco_{version}.py", *values])


def _value(config, name):
    for part in name.split("."):
        config = getattr(config, part)
    return "none" if config is None else config


def run():
    """Starts the command with the arguments of the process."""
    define_flags()
    script.run(main, check, shown=lambda argv: config_lib.Config())
