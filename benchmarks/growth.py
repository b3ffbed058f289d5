"""How start, resume, features, client, report, diagnostics and scores grow with the data's size.

    python benchmarks/growth.py [--rows=resume,folder] [--scale=4]

Made-up inputs of three sizes, each four times the last. Each line has CPU seconds (user and
system), bytes read, and the largest increase of anonymous memory (RssAnon: pages of memory maps,
which the system can drop, are not in it). The exponent is the slope between the last two sizes on
logarithmic axes: 0 is constant, 1 is proportional. The last columns continue the straight line
through the last two sizes; a value at most a quarter above the larger of the two before counts as
constant. Small increases of memory vanish in what the process holds already.
"""

import argparse
import json
import math
import os
import pathlib
import tempfile
import types

import annotations as coco_json
import numpy as np
import tensorflow as tf
from meter import Meter
from tqdm import tqdm

from moco_tf import distribute
from moco_tf.contrastive import random_keys
from moco_tf.data import sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.sources import manifest
from moco_tf.data.tfdata import examples
from moco_tf.detection.data.annotations import open_annotations
from moco_tf.detection.scoring import coco
from moco_tf.evaluation.embedding_parts import ROWS, Parts
from moco_tf.pretraining.diagnostics import Diagnostics
from moco_tf.probes import features, linear
from moco_tf.probes.feature_files import FeatureFiles
from moco_tf.training import metrics_file

AT = {"1.28 M": 1.28e6, "100 M": 1e8, "1 B": 1e9}
FEATURES = 2048
NOISE = 1.25  # a value that is at most so many times those before is constant
RECORD = bytes(4096)


def _shards(folder, count):
    """Shards of 64 records of 4 kB, with a manifest."""
    entries = {}
    for shard in range(count):
        path = folder / f"{shard:06}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for _ in range(64):
                writer.write(RECORD)
        entries[path.name] = {"records": 64, "bytes": path.stat().st_size}
    manifest.write(str(folder), entries)
    return f"tfrecord:{folder}/*.tfrecord"


def opening(folder, images):
    """TFRecords with a manifest: opened."""
    address = _shards(folder, images // 64)
    with Meter() as meter:
        sources.open_source(address)
    return meter


def resume(folder, images):
    """TFRecords: first batch after 90 % of an epoch."""
    source = sources.open_source(_shards(folder, images // 64))
    start = int(0.9 * (images // 64))
    with Meter() as meter:
        data = examples(source, BatchLayout(64), seed=0, shuffle_buffer=1024, start_step=start)
        next(iter(data))
    return meter


def folder(folder, images):
    """Folder of image files: listed and opened."""
    for i in range(images):
        path = folder / f"n{i // 1300:08}" / f"n{i // 1300:08}_{i}.JPEG"
        if i % 1300 == 0:
            path.parent.mkdir()
        os.close(os.open(path, os.O_CREAT))
    with Meter() as meter:
        source = sources.open_source(f"folder:{folder}")
        assert source.num_examples == images
    return meter


def labels(folder, images):
    """Labels of a source: a graph that reads them is traced and serialized."""
    source = sources.from_arrays(np.zeros((images, 1, 1, 3), np.uint8), np.zeros(images, int))
    with Meter() as meter:
        data = tf.data.Dataset.range(images).map(source.label)
        assert data.take(1).reduce(np.int64(0), lambda a, b: a + b).numpy() == 0
    return meter


def extraction(folder, images):
    """Features, 2,048 of each image: extracted to disk."""
    source = sources.from_arrays(np.zeros((images, 1, 1, 3), np.uint8))
    strategy = tf.distribute.get_strategy()

    def predict(batch):
        x = tf.cast(batch["x"][:, 0, 0, :1], tf.float32)
        return {"x0": tf.tile(x, [1, FEATURES]), "label": batch["label"], "ok": batch["ok"]}

    own = distribute.make_predict_own(strategy, predict)
    sizes = {"image_size_px": 1, "resize_px": 1, "batch": 256}
    with Meter() as meter:
        files = FeatureFiles(str(folder / "x"), images, 256)
        features.extract_to(files, own, source, strategy, **sizes)
    return meter


def _feature_files(folder, images):
    files = FeatureFiles(str(folder / "x"), images, 256)
    rng = np.random.default_rng(0)
    for number in range(files.num_files):
        start, stop = files.bounds(number)
        x = rng.random((stop - start, FEATURES), np.float32)
        files.write(number, {"x0": x, "ok": np.ones(stop - start, bool)})
    return files.rows_of("x0")


def sweep(folder, images):
    """Sweep of linear_cached: an epoch of two classifiers of 10 classes on 90 % of the rows."""
    x = _feature_files(folder, images)
    rows = np.flatnonzero(np.arange(images) % 10)
    y = np.arange(images) % 10
    options = {"momentum": 0.9, "batch_size": 256, "epochs": 1, "seed": 0, "title": None}
    with Meter() as meter:
        classifiers = linear.fit(x.at(rows), y[rows], 10, [0.1, 1.0], [0.0, 0.0], **options)
        classifiers.predict(0, x.at(np.arange(0, images, 10)))
    return meter


def client(folder, images):
    """Client: parts of its answers, joined."""
    parts = Parts(str(folder / "x.npz"))
    with Meter() as meter:
        for start in range(0, images, ROWS):
            rows = min(ROWS, images - start)
            names = np.array([f"photos/{i:012}.jpg" for i in range(start, start + rows)])
            x = np.zeros((rows, FEATURES), np.float32)
            parts.add({"name": names, "feature": x, "ok": np.ones(rows, bool)})
        parts.join()
    return meter


def _metrics(folder, steps):
    path = folder / "metrics.jsonl"
    line = {f"value_{i}": i / 7 for i in range(40)} | {"loss": 7.0, "top1": 0.5}
    rest = json.dumps(line)[1:]
    with path.open("w") as file:
        file.writelines(f'{{"step": {step}, {rest}\n' for step in range(1, steps + 1))
    return str(path)


def report(folder, steps):
    """metrics.jsonl of so many steps: curves of the report."""
    path = _metrics(folder, steps)
    with Meter() as meter:
        curves = metrics_file.Curves(["loss", "top1"])
        for line in metrics_file.lines_of(path):
            curves.add(line)
    return meter


def log_resume(folder, steps):
    """metrics.jsonl of so many steps: cut at a resume, 100 steps before its end."""
    path = _metrics(folder, steps)
    with Meter() as meter:
        metrics_file.cut_after(path, steps - 100)
    return meter


def queue(folder, keys):
    """Queue of so many keys of 128 numbers: made, and measured once."""
    with Meter() as meter:
        model = types.SimpleNamespace(
            queue=tf.Variable(random_keys(0)((keys, 128))),
            queue_ptr=tf.Variable(np.int64(0)),
            queue_size=keys,
            symmetric=False,
        )
    diagnostics = Diagnostics.__new__(Diagnostics)
    diagnostics.model, diagnostics.layout = model, BatchLayout(256)
    diagnostics.queue_state(keys)  # traced
    with Meter() as state:
        diagnostics.queue_state(keys)
    meter.cpu_s = state.cpu_s
    return meter


def annotations(folder, images):
    """COCO's JSON, 7 objects an image with masks: opened from what the first start kept."""
    objects = 7 * images
    coco_json.write(str(folder / "set.json"), images, objects)
    coco_json.opened(str(folder), objects)
    with Meter() as meter:
        coco_json.opened(str(folder), objects)
    return meter


def scoring(folder, images):
    """COCO's score of boxes: 7 objects and 20 detections an image, of 80 classes."""
    coco_json.write(str(folder / "set.json"), images, 7 * images)
    truth = open_annotations(f"coco:{folder},{folder}/set.json", training=False)
    rng = np.random.default_rng(0)
    predictions = []
    for _ in range(images):
        corner = rng.uniform(0, 350, (20, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 130, (20, 2))], axis=1)
        label = rng.integers(coco_json.CLASSES, size=20)
        predictions.append({"boxes": boxes, "score": rng.random(20), "label": label})
    with Meter() as meter:
        coco.score(truth, predictions, "bbox")
    return meter


SMALLEST = {
    opening: 4096,
    resume: 4096,
    folder: 10_000,
    labels: 1_000_000,
    extraction: 10_000,
    sweep: 10_000,
    client: 10_000,
    report: 10_000,
    log_resume: 10_000,
    queue: 65_536,
    annotations: 1000,
    scoring: 125,
}


def exponent(sizes, values):
    """Slope between the last two values on logarithmic axes; None without two values."""
    if min(values[-2:]) <= 0:
        return None
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def continued(sizes, values, size):
    """The value at a larger size, see the top of this file."""
    if values[-1] <= NOISE * max(values[:-1]):
        return values[-1]
    each = max(values[-1] - values[-2], 0) / (sizes[-1] - sizes[-2])
    return values[-1] + each * (size - sizes[-1])


def measure(function, scale):
    """Prints the lines of a row."""
    sizes = [SMALLEST[function] * scale**i for i in range(3)]
    meters = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as root:
            meters.append(function(pathlib.Path(root), size))
    print(f"\n{function.__name__}: {function.__doc__}")
    for name, unit, factor in (("cpu_s", "s", 1), ("read", "MB", 1e6), ("memory", "MB", 1e6)):
        values = [getattr(meter, name) / factor for meter in meters]
        slope = exponent(sizes, values)
        text = "".join(f"  {n:>11,}: {v:9.3f} {unit}" for n, v in zip(sizes, values, strict=True))
        if slope is not None:
            text += f"  exponent {slope:.2f}"
            for title, size in AT.items():
                text += f"  {title}: {continued(sizes, values, size):,.2f} {unit}"
        print(f"  {name:7}{text}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    names = [function.__name__ for function in SMALLEST]
    parser.add_argument("--rows", default=",".join(names), help="some of the rows")
    parser.add_argument("--scale", type=int, default=4, help="factor between two sizes")
    args = parser.parse_args()
    chosen = args.rows.split(",")
    functions = [function for function in SMALLEST if function.__name__ in chosen]
    for function in tqdm(functions):
        measure(function, args.scale)


if __name__ == "__main__":
    main()
