"""Whole runs beside lightly's, the library that users would take instead: speed and accuracy.

    pip install lightly        (brings torchvision and Lightning)
    python benchmarks/peers.py --data=DIR [--seeds=3] [--images=8192] [--epochs=2]

A torch without CUDA does not fit PyPI's torchvision. This is enough beside it:

    pip install --no-deps --target=PEERS lightly lightning-utilities torchvision
    PYTHONPATH=PEERS python benchmarks/peers.py --data=DIR

DIR holds CIFAR-10's binary version; its files may be compressed by xz. Each seed is a run of
`train.py` with configs/cifar10_demo.py and one of benchmarks/lightly_moco.py, one after the other.
Both train the same narrow ResNet-18 in float32 with the same initialization, views, batch, BN
groups, queue, momentum, optimizer and schedule on the same images. A short trial chooses lightly's
number of loading processes and its layout of memory. BN has one group by default, as in lightly's
example: lightly is fastest so.

`images/s` counts the steps after the first eight, input included. `in all` is the images of all
steps over `seconds`, which last from the start of the process to its end: imports, reading,
compilation, our encoder and report, lightly's weights. CPU seconds are those of the process and of
its loading processes. kNN looks for the 10,000 test images' neighbors among the training images, in
the same way for both encoders.

The defaults take about 12 minutes on two cores.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import cifar_binary
import harness
import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported, for kNN

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent
WARMUP_STEPS = 8  # a round of the config's log
KNN = {"neighbours": 200, "temperature": 0.1}  # as the config's monitor
# Of both; what is not here is in configs/cifar10_demo.py and set so in lightly_moco.py.
HYPERPARAMETERS = {
    "dim": 128,
    "queue_size": 4096,
    "momentum": 0.99,
    "temperature": 0.1,
    "weight_decay": 5e-4,
}
RATE_OF_256 = 0.03


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's binary version")
    parser.add_argument("--peers", default="lightly,moco_tf", help="one or both of these")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--images", type=int, default=8192, help="training images")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--bn_group_size", type=int, help="rows; the batch if not given")
    args = parser.parse_args()
    args.bn_group_size = args.bn_group_size or args.batch
    if args.epochs * (args.images // args.batch) <= WARMUP_STEPS:
        sys.exit(f"The run must have more than {WARMUP_STEPS} steps. Use more images or epochs.")
    with tempfile.TemporaryDirectory() as folder:
        cifar_binary.unpack(args.data, folder, args.images)
        args.data = folder
        measured, settings = measure(args, pathlib.Path(folder))
    if not measured:
        sys.exit("No peer could start: see above.")
    first = next(iter(measured))
    _, *others = measured[first][0]
    harness.report(
        title(args, settings),
        ("run", "images/s", f"against {first}", *others, "lowest kNN %", "highest kNN %"),
        [(name, *summary(runs, measured[first])) for name, runs in measured.items()],
        runs=measured,
        lightly=settings,
    )


def title(args, settings):
    """What the table shows: the runs' size, and what lightly ran with."""
    run = (
        f"{args.images} images of CIFAR-10, {args.epochs} epochs, ResNet-18 of width {args.width}, "
        f"batch {args.batch} in BN groups of {args.bn_group_size}, queue "
        f"{HYPERPARAMETERS['queue_size']}, medians of {args.seeds} seeds"
    )
    if not settings:
        return run
    layout = "channels-last" if settings["channels_last"] else "contiguous"
    return (
        f"{run}; lightly {settings['version']} on torch {settings['torch']}, {layout}, "
        f"{settings['workers']} loading processes"
    )


def measure(args, folder):
    """Runs all peers in turn for each seed.

    Returns:
        Dict from the name of a peer to its runs, and the settings that the trial chose. A peer that
        cannot start is left out, and said.
    """
    names, measured, settings = args.peers.split(","), {}, {}
    if "lightly" in names:
        try:
            settings, *_ = lightly("trial", args)
        except RuntimeError as error:
            names.remove("lightly")
            print(f"lightly: left out. {str(error).strip().splitlines()[-1]}", file=sys.stderr)
    for seed in range(args.seeds):
        for name in names:
            run = run_lightly if name == "lightly" else run_ours
            output = folder / f"{name}-{seed}"
            speed, seconds, cpu_seconds, accuracy = run(args, seed, output, settings)
            row = {
                "images/s": speed,
                "in all": args.epochs * (args.images // args.batch) * args.batch / seconds,
                "seconds": seconds,
                "CPU seconds": cpu_seconds,
                "kNN %": 100 * accuracy,
            }
            measured.setdefault(name, []).append(row)
            print(f"seed {seed} {name}: {json.dumps(row)}", file=sys.stderr, flush=True)
    return measured, settings


def summary(runs, first_runs):
    """Medians over the runs, the speed also against other runs', and the spread of kNN."""
    speed, *medians = (statistics.median(run[key] for run in runs) for key in runs[0])
    reference = statistics.median(run["images/s"] for run in first_runs)
    accuracies = [run["kNN %"] for run in runs]
    return speed, speed / reference, *medians, min(accuracies), max(accuracies)


def run_lightly(args, seed, run, settings):
    """A run of lightly's: images per second, seconds, CPU seconds, kNN accuracy."""
    weights, output = f"{run}.pt", f"{run}.npz"
    flags = [f"--seed={seed}", f"--warmup_steps={WARMUP_STEPS}", f"--output={weights}"]
    flags.append(f"--workers={settings['workers']}")
    flags += ["--channels_last"] if settings["channels_last"] else []
    speed, *cost = lightly("train", args, *flags)
    lightly("features", args, f"--weights={weights}", f"--output={output}")
    return speed["images_per_second"], *cost, knn_of_features(args, output)


def lightly(task, args, *flags):
    """Runs a task of lightly_moco.py; as `finish`, with its last line as JSON."""
    names = ("data", "images", "epochs", "batch", "width", "bn_group_size")
    values = {name: getattr(args, name) for name in names} | HYPERPARAMETERS
    values["learning_rate"] = RATE_OF_256 * args.batch / 256
    shared = [f"--{name}={value}" for name, value in values.items()]
    printed, *cost = finish([str(FOLDER / "lightly_moco.py"), task, *shared, *flags])
    return json.loads(printed.strip().splitlines()[-1]), *cost


def run_ours(args, seed, run, settings):
    """A run of `train.py`; as `run_lightly`."""
    fields = {
        "data.source": f"cifar_binary:{args.data}:train:{args.images}",
        "model.width": args.width,
        "model.head": "mlp",
        "model.dim": HYPERPARAMETERS["dim"],
        "model.queue_size": HYPERPARAMETERS["queue_size"],
        "model.momentum": HYPERPARAMETERS["momentum"],
        "model.temperature": HYPERPARAMETERS["temperature"],
        "model.bn_group_size": args.bn_group_size,
        "optimizer.learning_rate": RATE_OF_256,
        "optimizer.weight_decay": HYPERPARAMETERS["weight_decay"],
        "optimizer.first_epoch": 0,
        "monitor.source": "off",
        "batch_size": args.batch,
        "epochs": args.epochs,
        "log_every_steps": WARMUP_STEPS,
        "seed": seed,
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    config = f"--config={ROOT / 'configs' / 'cifar10_demo.py'}"
    _, *cost = finish([str(ROOT / "train.py"), config, f"--workdir={run}", *flags])
    return our_speed(run / "metrics.jsonl", args.batch), *cost, our_knn(args, run)


def our_speed(path, batch):
    """Images per second after the first steps, from the rounds of a metrics.jsonl."""
    done, images, seconds = 0, 0, 0.0
    for line in map(json.loads, path.read_text().splitlines()):
        if "images_per_second" not in line:
            continue
        if done >= WARMUP_STEPS:
            images += (line["step"] - done) * batch
            seconds += (line["step"] - done) * batch / line["images_per_second"]
        done = line["step"]
    return images / seconds


def our_knn(args, run):
    """Share of the test images that kNN classifies right, by the encoder of a run."""
    from moco_tf import encoders
    from moco_tf.probes import monitor

    loaded = encoders.load(str(run))
    crop = encoders.preprocessing(loaded)
    bank = cifar_binary.open(f"{args.data}:train:{args.images}")
    queries = cifar_binary.open(f"{args.data}:test")
    sizes = {"image_size_px": crop.image_size_px, "resize_px": crop.resize_px}
    return monitor.Probe(loaded.encoder, bank, queries, crop.recipe, **sizes, **KNN)()["knn"]


def knn_of_features(args, path):
    """The same by the features in a file, which lightly_moco.py wrote."""
    from moco_tf.probes import knn

    _, bank_labels = cifar_binary.read(args.data, "train", args.images)
    _, labels = cifar_binary.read(args.data, "test")
    with np.load(path) as x:
        return knn.accuracy(x["train"], bank_labels, x["test"], labels, **KNN)


def finish(command):
    """Runs a Python script to its end.

    Returns:
        What it printed, the seconds until its end, and the CPU seconds of its process and of those
        that it waited for.

    Raises:
        RuntimeError: if it failed.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=output,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        printed, said = output.read(), errors.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{said[-2000:]}")
    return printed, seconds, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
