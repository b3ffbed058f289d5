"""Embeds the images of a folder, and saves names and embeddings.

    python examples/embed.py runs/quickstart photos [--output=embeddings.npz]

Embeddings have unit length, so their products are cosine similarities. Images are prepared as in
the run. Files that cannot be decoded are left out, and named.
"""

import argparse
import pathlib

import numpy as np

import moco_tf

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}


def image_files(folder):
    """Paths of the image files below a folder, in order."""
    files = pathlib.Path(folder).rglob("*")
    paths = sorted(str(path) for path in files if path.suffix.lower() in ENDINGS)
    if not paths:
        raise SystemExit(f"A folder with images is needed. Received: {folder}.")
    return paths


def embed(checkpoint, paths):
    """Paths of the images that can be decoded, and their embeddings, float32 NxD."""
    embeddings = moco_tf.load(checkpoint).embed(paths)
    is_decoded = np.linalg.norm(embeddings, axis=1) > 0.5  # zeros stand for an undecodable file
    return np.array(paths)[is_decoded], embeddings[is_decoded]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="workdir of a run, or encoder.keras")
    parser.add_argument("folder", help="folder of images")
    parser.add_argument("--output", default="embeddings.npz", help="file to write")
    args = parser.parse_args(argv)

    paths, embeddings = embed(args.checkpoint, image_files(args.folder))
    np.savez(args.output, names=paths, embeddings=embeddings)
    print(f"{args.output}: {len(paths)} embeddings of {embeddings.shape[1]} numbers")


if __name__ == "__main__":
    main()
