"""Time and memory of COCO's JSON, of COCO's size by default, without its images: check and starts.

    python benchmarks/annotations.py [--images=118000] [--objects=860000]

The file is made up: boxes at random, polygons of 24 points, a crowd with run lengths in 86 objects,
0.48 GB in all. Writing it takes longer than checking it. A run's first start reads the file and
keeps its annotations; the next one reads what was kept. Each row has a process of its own.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import random
import tempfile
import time

import harness

from moco_tf.detection.check import check
from moco_tf.detection.data.annotations import open_annotations
from moco_tf.reports import checks

HEIGHT, WIDTH = 480, 640
CLASSES = 80
POINTS = 24  # of a polygon: COCO's have about as many
CROWDS = 86  # one object in so many


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--objects", type=int, default=860_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "set.json")
        write(path, args.images, args.objects)
        size = os.path.getsize(path) / 1e9
        rows = []
        for name, function in (("check", checked), ("first start", opened), ("next start", opened)):
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
                rows.append((name, *pool.submit(measured, function, folder, args.objects).result()))
        columns = ("what", "s", "CPU s", "memory at its start, GB", "peak memory, GB")
        facts = {"images": args.images, "objects": args.objects, "file_gb": size}
        harness.report("annotations", columns, rows, **facts)


def measured(function, folder, objects):
    """Seconds, CPU seconds, and memory before and at the peak, of a function of a folder."""
    base = harness.peak_memory()
    began, cpu = time.time(), time.process_time()
    function(folder, objects)
    seconds = time.time() - began
    return seconds, time.process_time() - cpu, base, harness.peak_memory()


def checked(folder, objects):
    """Checks the annotations."""
    result = check(f"coco:{folder},{folder}/set.json", masks=True, read_images=False, quiet=True)
    assert f"{objects:,} of {CLASSES} classes" in checks.text(result)


def opened(folder, objects):
    """Opens the annotations as a run in this folder does."""
    options = {"training": True, "masks": True, "index_dir": os.path.join(folder, "sources")}
    annotations = open_annotations(f"coco:{folder},{folder}/set.json", **options)
    assert 0.9 * objects < len(annotations.boxes) <= objects  # those that are too small are dropped


def write(path, images, objects):
    """Writes a file in COCO's format."""
    rng = random.Random(0)
    with open(path, "w") as file:
        file.write('{"images": [')
        for number in range(images):
            record = {"id": number, "file_name": f"{number:012}.jpg", "license": 3}
            record |= {"height": HEIGHT, "width": WIDTH, "date_captured": "2013-11-14 11:18:45"}
            record["coco_url"] = f"http://images.cocodataset.org/train2017/{number:012}.jpg"
            file.write(", " * (number > 0) + json.dumps(record))
        classes = [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)]
        file.write(f'], "categories": {json.dumps(classes)}, "annotations": [')
        for number in range(objects):
            record = {"id": number + 1, "image_id": rng.randrange(images)}
            record |= drawn(rng, is_crowd=number % CROWDS == 0)
            file.write(", " * (number > 0) + json.dumps(record))
        file.write("]}")


def drawn(rng, is_crowd):
    """The class, box and mask of a random object."""
    x, y = rng.randrange(WIDTH - 130), rng.randrange(HEIGHT - 130)
    width, height = rng.randrange(5, 130), rng.randrange(5, 130)
    if is_crowd:
        counts = [x * HEIGHT + y, *[height, HEIGHT - height] * width]
        counts[-1] = HEIGHT * WIDTH - sum(counts[:-1])
        mask = {"size": [HEIGHT, WIDTH], "counts": counts}
    else:
        xs = [round(x + rng.random() * width, 2) for _ in range(POINTS)]
        ys = [round(y + rng.random() * height, 2) for _ in range(POINTS)]
        mask = [[v for point in zip(xs, ys, strict=True) for v in point]]
    return {
        "category_id": rng.randrange(1, CLASSES + 1),
        "bbox": [x, y, width, height],
        "area": width * height / 2,
        "iscrowd": int(is_crowd),
        "segmentation": mask,
    }


if __name__ == "__main__":
    main()
