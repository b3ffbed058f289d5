"""Peaks of memory of every command around a run of ResNet-50: which needs more than the step?

    python benchmarks/memory.py --images=DIR [--batch=8] [--image_size_px=224] [--backbone=resnet50]

DIR has `train` and `test` with a folder for each class. The commands run one after the other, each
a process of its own: three steps of training and their report, evaluations, exports and `convert`.
The peak is the largest resident size of the process, as `/usr/bin/time -v` prints it. TensorFlow
alone is the first row; what a command needs is its peak above that.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

import harness

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLASSIFIERS = ("knn", "linear_cached", "linear", "finetune")
FORMATS = {"savedmodel": "served", "keras": "x.keras", "torch": "x.pth.tar", "torchvision": "x.pth"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, help="folder with train and test")
    parser.add_argument("--backbone", default="resnet50", help="of `moco_tf.resnet`")
    parser.add_argument("--batch", type=int, default=8, help="rows of every training step")
    parser.add_argument("--image_size_px", type=int, default=224)
    parser.add_argument("--queue_size", type=int, default=65536)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        commands = make_commands(args, folder)
        peaks = {name: peak_gb(arguments) for name, arguments in commands.items()}
    base = peaks["TensorFlow alone"]
    harness.report(
        f"Memory, {args.backbone}, {args.image_size_px} px, batch {args.batch}",
        ("command", "peak, GB", "above TensorFlow, GB"),
        [(name, peak, peak - base) for name, peak in peaks.items()],
    )


def make_commands(args, folder):
    """Command lines by the name of what they do; each needs the output of those above it."""
    run = f"{folder}/run"
    splits = [os.path.join(args.images, split) for split in ("train", "test")]
    train = [
        "train",
        "--config=moco_v2",
        f"--workdir={run}",
        f"--config.data.source=folder:{splits[0]}",
        f"--config.data.image_size_px={args.image_size_px}",
        f"--config.model.backbone=resnet:{args.backbone}",
        f"--config.model.bn_group_size={args.batch // 2}",
        f"--config.model.queue_size={args.queue_size}",
        f"--config.batch_size={args.batch}",
        "--config.epochs=none",
        "--config.steps=3",
    ]
    commands = {
        "TensorFlow alone": ["-c", "import moco_tf"],
        "train, with its report": ["-m", "moco_tf", *train],
        "report": ["-m", "moco_tf", "report", run],
    }
    for task in CLASSIFIERS:
        flags = [f"--config.data.{s}=folder:{p}" for s, p in zip(("train", "test"), splits)]
        flags += [f"--checkpoint={run}", f"--workdir={folder}/{task}"]
        if task in ("linear", "finetune"):
            flags += [f"--config.batch_size={args.batch}", "--config.epochs=1"]
        commands[task] = ["-m", "moco_tf", "evaluate", f"--task={task}", *flags]
    for name, output in FORMATS.items():
        flags = f"--checkpoint={run}", f"--format={name}", f"--output={folder}/{output}"
        commands[f"export, {name}"] = ["-m", "moco_tf", "export", *flags]
    shards = [f"folder:{splits[0]}", f"{folder}/shards", "--shards=2"]
    return commands | {"convert": ["-m", "moco_tf", "convert", *shards]}


def peak_gb(arguments):
    """Runs Python with these arguments; returns the largest resident size of its process, GB."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(arguments)} failed:\n{output.read()[-2000:]}")
    return usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
