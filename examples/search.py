"""Finds the images of a folder that are most similar to one image.

    python examples/search.py runs/quickstart query.jpg photos [--count=5]

Prints cosine similarities and names, most similar first.
"""

import argparse
import os

import numpy as np
from embed import embed, image_files


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="workdir of a run, or encoder.keras")
    parser.add_argument("query", help="image to search with")
    parser.add_argument("folder", help="folder of images to search in")
    parser.add_argument("--count", type=int, default=5, help="number of images to print")
    args = parser.parse_args(argv)

    others = [path for path in image_files(args.folder) if not os.path.samefile(path, args.query)]
    paths, embeddings = embed(args.checkpoint, [args.query, *others])
    if paths[0] != args.query:
        raise SystemExit(f"The query must be an image. Received: {args.query}.")
    similarity = embeddings[1:] @ embeddings[0]
    for place in np.argsort(-similarity)[: args.count]:
        print(f"{similarity[place]:.3f}  {paths[1:][place]}")


if __name__ == "__main__":
    main()
