"""How many of the five nearest images have the label of the one looked for, by several vectors.

    python -m moco_tf embed RUN PHOTOS
    python benchmarks/search_precision.py PHOTOS LABELS.csv RUN [OTHER-RUN ...]

LABELS.csv has lines FILE,LABEL, files relative to PHOTOS; training has not seen it. Every image is
looked for among all others. Beside the features of each run, those of its encoder before training
and the pixels of thumbnails. The last lines are a table and its JSON.
"""

import argparse
import csv
import os
import tempfile

import harness
import numpy as np
from PIL import Image

from moco_tf import encoders
from moco_tf.data import sources
from moco_tf.evaluation import embeddings
from moco_tf.probes import knn

NEIGHBORS = 5
THUMBNAIL_PX = 32


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("labels")
    parser.add_argument("runs", nargs="+")
    args = parser.parse_args()
    with open(args.labels, newline="") as file:
        labels = dict(csv.reader(file))
    names = sorted(labels)
    rows = [("pixels of thumbnails", precision(pixels(args.photos, names), names, labels))]
    for run in args.runs:
        for title, untrained in ((f"{run}, untrained", True), (run, False)):
            loaded = encoders.load(run, random_init=untrained)
            vectors = features(loaded, args.photos, names)
            rows.append((title, precision(vectors, names, labels)))
    counts = np.unique([labels[name] for name in names], return_counts=True)[1]
    rows.insert(0, ("chance", float(np.sum(counts * (counts - 1)) / len(names) / (len(names) - 1))))
    harness.report(
        f"Precision of the {NEIGHBORS} nearest of {len(names)} images, {len(counts)} labels",
        ("vectors", "precision"),
        rows,
    )


def pixels(folder, names):
    """Thumbnails as vectors, less their mean, so that brightness alone is no likeness."""
    rows = []
    for name in names:
        image = Image.open(os.path.join(folder, name)).convert("RGB")
        rows.append(np.float32(image.resize((THUMBNAIL_PX, THUMBNAIL_PX))).ravel())
    return np.stack(rows) - np.mean(rows, axis=0)


def features(loaded, folder, names):
    """Vectors of the images in the order of `names`, as `embed` writes them."""
    source = sources.open_source(f"folder:{folder}", decode=loaded.run.data.decode)
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "x.npz")
        embeddings.write(loaded, source, path, title="images")
        found = embeddings.read(path)
    rows = {os.path.relpath(name, folder): row for row, name in enumerate(found.names)}
    return found.vectors[[rows[name] for name in names]]


def precision(vectors, names, labels):
    """Mean share of the nearest other images that have the same label."""
    _, nearest = knn.nearest(vectors, vectors, NEIGHBORS + 1)
    label = np.array([labels[name] for name in names])
    hits = []
    for row, neighbors in enumerate(nearest):
        others = neighbors[neighbors != row][:NEIGHBORS]  # an exact copy may come before itself
        hits.append(np.mean(label[others] == label[row]))
    return float(np.mean(hits))


if __name__ == "__main__":
    main()
