"""Converts a folder of images to TFRecord shards, which are faster to read.

    python -m moco_tf convert folder:DIR OUT --shards=N

Use it for large or remote data. The bytes of the images do not change. Images go to the shards in a
random order, so each shard is a sample of the whole. Choose shards of 100 to 200 MB.

The file manifest.json beside the shards has the records and bytes of each: a run opens the data
without reading them, and names shards that are missing or cut short.
"""

import argparse
import os
import sys

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf.data.sources import Source, manifest, open_source

# Refused before they are opened, because opening could start a download.
REFUSED = ("tfds:", "tfrecord:")
SAMPLE = 32  # images that the manifest describes


def convert(source: Source, output: str, shards: int) -> str:
    """Writes `shards` files OUTPUT/images-00000-of-0000N.tfrecord, and OUTPUT/manifest.json.

    Each record is a `tf.train.Example` with `image/encoded`, `image/filename` and, if the source
    has labels, `image/class/label`. Files get their final names when all are complete.

    Args:
        source: source of encoded images.
        output: folder for the files, local or gs://.
        shards: number of files, at most the number of images.

    Returns:
        Glob of the files, for `tfrecord:GLOB`.

    Raises:
        ValueError: if `shards` is out of range, or the folder already has shards.
    """
    if not 1 <= shards <= source.num_examples:
        raise ValueError(
            f"`--shards` must be in 1..{source.num_examples}, the number of images. "
            f"Received: {shards}."
        )
    pattern = os.path.join(output, "images-*.tfrecord")
    if tf.io.gfile.glob(pattern):
        raise ValueError(
            f"The output must have no shards. Received: a folder in which {pattern} already "
            "exists. Choose another folder, or remove the files."
        )
    tf.io.gfile.makedirs(output)
    order = np.random.default_rng(0).permutation(source.num_examples)
    paths = [
        os.path.join(output, f"images-{shard:05}-of-{shards:05}.tfrecord")
        for shard in range(shards)
    ]
    with tqdm(total=source.num_examples, unit="image") as bar:
        for shard, path in enumerate(paths):
            data = tf.data.Dataset.from_tensor_slices(order[shard::shards])
            data = data.map(lambda i: (i, source.read(i), source.name(i)), tf.data.AUTOTUNE)
            with tf.io.TFRecordWriter(path + ".tmp") as writer:
                for index, encoded, name in data.as_numpy_iterator():
                    label = None if source.labels is None else int(source.labels[index])
                    writer.write(_example(encoded, name, label))
                    bar.update()
    entries = {
        os.path.basename(path): {
            "records": len(order[shard::shards]),
            "bytes": tf.io.gfile.stat(path + ".tmp").length,
        }
        for shard, path in enumerate(paths)
    }
    for path in paths:  # after all are written, so that readers see all shards or none
        tf.io.gfile.rename(path + ".tmp", path, overwrite=True)
    facts = {"classes": source.classes, "sample": _sample(source, order[:SAMPLE])}
    manifest.write(output, entries, **facts)
    return pattern


def _sample(source, indices):
    """Names, mean size and mean color, in [0, 1], of some images that can be decoded."""
    names, sizes, colors = [], [], []
    for index in indices:
        try:
            image = source.image(int(index)).numpy()
        except tf.errors.OpError:
            continue
        names.append(source.name(int(index)).numpy().decode(errors="replace"))
        sizes.append(image.shape[:2])
        colors.append(image.mean((0, 1)) / 255)
    if not names:
        return {}
    height_px, width_px = np.mean(sizes, 0).round(1).tolist()
    mean = np.mean(colors, 0).round(4).tolist()
    return {"names": names, "height_px": height_px, "width_px": width_px, "mean": mean}


def _example(encoded, name, label):
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name])),
    }
    if label is not None:
        value = tf.train.Int64List(value=[label])
        features["image/class/label"] = tf.train.Feature(int64_list=value)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def run():
    """Starts the command with the arguments of the process."""
    parser = argparse.ArgumentParser(prog="python -m moco_tf convert")
    parser.add_argument("source", help="folder:DIR, or my_module:REST with encoded images")
    parser.add_argument("output", help="folder for the shards, local or gs://")
    parser.add_argument("--shards", type=int, required=True, help="number of files")
    args = parser.parse_args()
    try:
        source = None if args.source.startswith(REFUSED) else open_source(args.source)
        if not (isinstance(source, Source) and source.encoded):
            raise ValueError(
                "The source must be folder:DIR, or another source of encoded images with random "
                f"access. Received: {args.source!r}."
            )
        pattern = convert(source, args.output, args.shards)
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"convert: {error}")
    print(f"--config.data.source=tfrecord:{pattern}")
