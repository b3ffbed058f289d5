"""Benchmark of the input pipeline: two augmented views of each JPEG, per CPU core, against peers.

    pip install -e .[bench]
    python benchmarks/pipeline.py --images=DIR [--long_side=500] [--rounds=5]

Every worker has its own core and makes MoCo v2's views (224 px) of the same images. A round is 400
images; the result is images a second of CPU time. Input pipelines read ahead while nobody waits for
them, so a round ends when the worker is idle again. That way all of its work is counted.

The official code's recipe is written here in PIL, which torchvision's transforms call.
"device" is the host's share of the work when colors and blur run on the accelerator.
"""

import argparse
import os
import pathlib
import random
import sys
import time

import harness

ROUND, BATCH, SIZE = 400, 16, 224
WORKERS = ("official", "albumentations", "host", "host, no XLA", "device", "decode")
JPEG = (".jpg", ".jpeg")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, help="folder of JPEGs")
    parser.add_argument("--long_side", type=int, help="use only images of this longer side, px")
    parser.add_argument("--workers", default=";".join(WORKERS), help="some of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    paths = find(args.images, args.long_side)
    if len(paths) < BATCH:
        sys.exit(f"`--images` must hold {BATCH} JPEGs that fit. Received: {len(paths)}.")
    if args.worker:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, [cores[WORKERS.index(args.worker) % len(cores)]])
        batches = make_batches(args.worker, paths)
        next(batches)
        harness.serve(lambda: measure(batches))
        return
    results = harness.compare(args.workers.split(";"), args.rounds, sys.argv[1:])
    speed = harness.medians(results, "images_per_cpu_second")
    peer = next(iter(speed))
    harness.report(
        f"Two views of {len(paths)} JPEGs",
        ("pipeline", "images/s a core", f"against {peer}"),
        [(name, value, value / speed[peer]) for name, value in speed.items()],
        device_half_ms_per_view=device_half(),
    )


def find(folder, long_side):
    """Paths of the folder's color JPEGs, those of one longer side if that is given."""
    from PIL import Image

    paths = [p for p in sorted(pathlib.Path(folder).rglob("*")) if p.suffix.lower() in JPEG]
    images = {p: Image.open(p) for p in paths}
    return [
        p
        for p, image in images.items()
        if image.mode == "RGB" and long_side in (None, max(image.size))
    ]


def measure(batches):
    """CPU time of a round, from idle to idle."""
    settle()
    start = time.process_time()
    for _ in range(ROUND // BATCH):
        next(batches)
    settle()
    return {"images_per_cpu_second": ROUND / (time.process_time() - start)}


def settle():
    """Waits until this process is idle."""
    busy = True
    while busy:
        start = time.process_time()
        time.sleep(0.25)
        busy = time.process_time() - start > 0.01


def make_batches(worker, paths):
    """Endless iterator of batches of two views, as one of `WORKERS` makes them."""
    if worker in ("official", "albumentations"):
        import torch

        torch.set_num_threads(1)
        if worker == "albumentations":
            return torch_batches(albumentations_view(), paths, as_array=True)
        import torch_views

        view = torch_views.official(SIZE, 0.2, MEAN, STD, blur=True)
        return torch_batches(view, paths, as_array=False)
    return tensorflow_batches(worker, paths)


def tensorflow_batches(worker, paths):
    """The project's pipeline as train.py uses it, or decoding alone."""
    import tensorflow as tf

    from moco_tf.data import image_ops, recipes, sources
    from moco_tf.data.batch_layout import BatchLayout
    from moco_tf.data.two_views import two_view_dataset

    names = [str(p) for p in paths]
    if worker == "decode":
        data = tf.data.Dataset.from_tensor_slices(names).repeat()
        data = data.map(lambda p: image_ops.decode(tf.io.read_file(p)), tf.data.AUTOTUNE)
        return iter(data.map(tf.shape).batch(BATCH))
    source = sources.Source(
        num_examples=len(names),
        read=lambda i: tf.io.read_file(tf.gather(names, i)),
        name=lambda i: tf.gather(names, i),
        encoded=True,
    )
    data = two_view_dataset(
        source,
        recipes.find("moco:v2"),
        BatchLayout(BATCH, group=BATCH // 2),
        augment_on="device" if worker == "device" else "host",
        jit_compile=worker == "host",
    )
    return iter(data)


def torch_batches(view, paths, as_array):
    """Batches as torch's data loader collates them, in this process."""
    import numpy as np
    import torch
    from PIL import Image

    while True:
        order = random.sample(paths, len(paths))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            pairs = []
            for path in order[start : start + BATCH]:
                image = Image.open(path).convert("RGB")
                if as_array:
                    image = np.asarray(image)
                pairs.append((view(image), view(image)))
            yield [torch.stack(views) for views in zip(*pairs, strict=True)]


def albumentations_view():
    """The same recipe in albumentations, on OpenCV (whose resize is not antialiased)."""
    import albumentations as A
    import cv2
    import torch

    cv2.setNumThreads(1)
    chain = A.Compose(
        [
            A.RandomResizedCrop((SIZE, SIZE), scale=(0.2, 1.0)),
            A.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            A.ToGray(p=0.2),
            A.GaussianBlur(blur_limit=(13, 13), sigma_limit=(0.1, 2.0), p=0.5),
            A.HorizontalFlip(p=0.5),
            A.Normalize(MEAN, STD),
        ]
    )

    def view(image):
        return torch.from_numpy(chain(image=image)["image"].transpose(2, 0, 1).copy())

    return view


def device_half():
    """Milliseconds a view of the compiled photometric half, on this machine's device."""
    import numpy as np
    import tensorflow as tf

    from moco_tf.data import recipes

    recipe = recipes.find("moco:v2")
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (64, SIZE, SIZE, 3), np.uint8))
    draws = tf.constant(rng.random((64, recipe.num_draws), np.float32))
    photometric = tf.function(recipe.photometric, jit_compile=True, autograph=False)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        float(tf.reduce_sum(photometric(images, draws)))
        times.append(time.perf_counter() - start)
    return 1000 * min(times[1:]) / len(images)


if __name__ == "__main__":
    main()
