"""Memory of a training step: what the log says before it is run, and what it takes.

    python benchmarks/step_memory.py [--only=N]

Each row is a process of its own, which makes the model and runs a few steps on generated images,
with the run's own input pipeline. Both figures are above what TensorFlow takes once it is imported.
"""

import argparse
import json
import subprocess
import sys

import harness

COLUMNS = (
    "backbone",
    "px",
    "batch",
    "bfloat16",
    "estimated, GB",
    "measured, GB",
    "measured / estimated",
)
CASES = (  # backbone, stem, px, batch, bfloat16
    ("resnet18", "cifar", 32, 256, False),
    ("resnet18", "imagenet", 64, 512, False),
    ("resnet18", "imagenet", 128, 128, False),
    ("resnet50", "imagenet", 112, 32, False),
    ("resnet50", "imagenet", 224, 8, False),
    ("resnet50", "imagenet", 224, 32, False),
    ("resnet50", "imagenet", 224, 32, True),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, help="number of a row, from 0")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(measure(*CASES[args.worker])))
        return
    rows = []
    for number in range(len(CASES)) if args.only is None else [args.only]:
        command = [sys.executable, __file__, f"--worker={number}"]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(answer.splitlines()[-1]))
        print(rows[-1], file=sys.stderr)
    harness.report("Memory of a step", COLUMNS, rows)


def measure(backbone, stem, px, batch, bfloat16):
    """A row of the table."""
    import tensorflow as tf
    from meter import Meter

    from moco_tf import presets
    from moco_tf.data import sources
    from moco_tf.pretraining import trial

    config = presets.load("own_images")
    config.data.source = "synthetic:shapes:train"
    config.data.image_size_px = config.monitor.resize_px = px
    config.model.backbone = f"resnet:{backbone}"
    config.model.stem, config.model.width = stem, None
    config.model.bn_group_size = batch // 4
    config.model.queue_size = batch * 4
    config.batch_size, config.mixed_bfloat16 = batch, bfloat16
    source = sources.open_source(config.data.source, decode=config.data.decode)
    with Meter() as meter:
        tried = trial.run(config, source, tf.distribute.get_strategy())
    estimated, measured = tried.bytes(batch, px) / 1e9, meter.memory / 1e9
    return backbone, px, batch, bfloat16, estimated, measured, measured / estimated


if __name__ == "__main__":
    main()
