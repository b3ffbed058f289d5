"""How alike an encoder finds copies of photos, and other photos: what `duplicates` can tell apart.

    python -m moco_tf embed RUN PHOTOS
    python benchmarks/copies.py RUN RUN/PHOTOS.npz

Copies of every tenth photo are saved again, resized, made brighter and cut. The last line is JSON.
"""

import argparse
import json
import os
import tempfile

import numpy as np
from PIL import Image

from moco_tf import encoders
from moco_tf.evaluation import embeddings
from moco_tf.reports import pages

EVERY = 10
COPIES = {
    "JPEG of quality 40": (lambda image: image, 40),
    "half the size": (lambda image: image.resize((image.width // 2, image.height // 2)), 90),
    "10 % brighter": (lambda image: image.point(lambda v: min(255, int(v * 1.1))), 95),
    "cut by 2.5 % at each side": (lambda image: cut(image), 90),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("embeddings")
    args = parser.parse_args()
    loaded, bank = encoders.load(args.run), embeddings.read(args.embeddings)
    cosine = (bank.vectors @ bank.vectors.T)[np.triu_indices(len(bank.vectors), 1)]
    originals = slice(None, None, EVERY)
    rows = {}
    for name, (change, quality) in COPIES.items():
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for i, path in enumerate(bank.names[originals]):
                paths.append(os.path.join(folder, f"{i}.jpg"))
                change(Image.open(path).convert("RGB")).save(paths[-1], quality=quality)
            copies = embeddings.of_files(loaded, paths).vectors
        alike = np.sum(copies * bank.vectors[originals], axis=1)
        rows[name] = {"least": float(alike.min()), "median": float(np.median(alike))}
    rows["other photos"] = {
        "1 pair in 1,000 above": float(np.quantile(cosine, 0.999)),
        "median": float(np.median(cosine)),
    }
    header = ["pair", "", "median"]
    cells = [
        [name, *(f"{label} {value:.4f}" for label, value in row.items())]
        for name, row in rows.items()
    ]
    print(pages.markdown(header, cells))
    print(json.dumps(rows))


def cut(image):
    """The image without a fortieth at each side."""
    x, y = image.width // 40, image.height // 40
    return image.crop((x, y, image.width - x, image.height - y))


if __name__ == "__main__":
    main()
