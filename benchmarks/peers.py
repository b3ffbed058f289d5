"""Whole runs beside lightly's, the library that users would take instead: speed and accuracy.

    pip install lightly        (brings torchvision and Lightning)
    python benchmarks/peers.py --data=DIR [--seeds=3] [--images=10240] [--epochs=2]

Beside a torch without CUDA, whose torchvision is not on PyPI, this is enough, too:

    pip install --no-deps --target=PEERS lightly lightning-utilities torchvision
    PYTHONPATH=PEERS python benchmarks/peers.py --data=DIR

DIR holds CIFAR-10's binary version, also compressed by xz. Each seed is a run of `train.py` with
configs/cifar10_demo.py, and one of benchmarks/lightly_moco.py, each in processes of its own that
have the machine to themselves. Both train the same narrow ResNet-18 in float32 with the same views,
batch, BN groups, queue, momentum, optimizer and schedule on the same images. Lightly's loading
processes and layout of memory are those of a short trial. BN has one group by default, as in
lightly's example and where it is fastest.

`images/s` counts the steps after the first eight, input included. `in all` counts all images and
the seconds until the process ends: its start, the reading of the images, our compilation, encoder
and report, lightly's weights. CPU seconds are those of the process and its loading processes. kNN
is the same for both: features of the 10,000 test images among those of the training images.

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
NEIGHBOURS, VOTE_TEMPERATURE = 200, 0.1  # of kNN, as the config's monitor
PEERS = ("lightly", "moco_tf")
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
    parser.add_argument("--peers", default=",".join(PEERS), help=f"of {PEERS}")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each")
    parser.add_argument("--images", type=int, default=10240, help="training images")
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
    harness.report(
        f"Whole runs on {args.images} images of CIFAR-10, {args.epochs} epochs, ResNet-18 of width "
        f"{args.width}, batch {args.batch} in BN groups of {args.bn_group_size}, queue "
        f"{HYPERPARAMETERS['queue_size']}, medians of {args.seeds} seeds",
        ("run", "images/s", "in all", "seconds", "CPU seconds", "kNN %", "lowest", "highest"),
        [summary(name, runs) for name, runs in measured.items()],
        runs=measured,
        lightly=settings,
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
            speed, seconds, cpu_seconds, features = run(
                args, seed, folder / f"{name}-{seed}", settings
            )
            row = {
                "images/s": speed,
                "in all": args.epochs * (args.images // args.batch) * args.batch / seconds,
                "seconds": seconds,
                "CPU seconds": cpu_seconds,
                "kNN %": knn_percent(args, *features),
            }
            measured.setdefault(name, []).append(row)
            print(f"seed {seed} {name}: {json.dumps(row)}", file=sys.stderr, flush=True)
    return measured, settings


def summary(name, runs):
    """A row of the table: medians over the runs, and the spread of their accuracy."""
    accuracies = [run["kNN %"] for run in runs]
    medians = [statistics.median(run[key] for run in runs) for key in runs[0]]
    return (name, *medians, min(accuracies), max(accuracies))


def run_lightly(args, seed, run, settings):
    """A run of lightly's: images per second, seconds, CPU seconds, and features of both splits."""
    weights, output = f"{run}.pt", f"{run}.npz"
    flags = [f"--seed={seed}", f"--warmup_steps={WARMUP_STEPS}", f"--output={weights}"]
    flags.append(f"--workers={settings['workers']}")
    flags += ["--channels_last"] if settings["channels_last"] else []
    speed, seconds, cpu_seconds = lightly("train", args, *flags)
    lightly("features", args, f"--weights={weights}", f"--output={output}")
    with np.load(output) as arrays:
        features = arrays["train"], arrays["test"]
    return speed["images_per_second"], seconds, cpu_seconds, features


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
    return our_speed(run / "metrics.jsonl", args.batch), *cost, our_features(args, run)


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


def our_features(args, run):
    """Features of the training and the test images by the encoder of a run."""
    import tensorflow as tf

    from moco_tf import encoders
    from moco_tf.probes import features

    loaded = encoders.load(str(run))
    crop = encoders.preprocessing(loaded)
    network = loaded.encoder.features_and_embeddings()
    predict_all = features.forward(network, crop.recipe, tf.distribute.get_strategy())
    sizes = {"image_size_px": crop.image_size_px, "resize_px": crop.resize_px}
    splits = f"{args.data}:train:{args.images}", f"{args.data}:test"
    opened = [cifar_binary.open(split) for split in splits]
    return [features.extract(predict_all, source, **sizes).x[0] for source in opened]


def knn_percent(args, bank, queries):
    """kNN accuracy of the test images, percent."""
    from moco_tf.probes import knn

    _, bank_labels = cifar_binary.read(args.data, "train", args.images)
    _, labels = cifar_binary.read(args.data, "test")
    votes = {"neighbours": NEIGHBOURS, "temperature": VOTE_TEMPERATURE}
    return 100 * knn.accuracy(bank, bank_labels, queries, labels, **votes)


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
