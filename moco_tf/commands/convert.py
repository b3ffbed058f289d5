"""Copies a folder of images into TFRecord shards, which large or remote data is read from faster.

    python -m moco_tf convert folder:DIR OUT --shards=N

The bytes of the images stay as they are. Images are dealt to the shards in a random order, so that
each shard is a sample of the whole; a good number of shards is one for each 100 to 200 MB.
"""

import argparse
import os
import sys

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from moco_tf.data.sources import folder


def convert(source, output, shards):
    """Writes `shards` files OUTPUT/images-00000-of-0000N.tfrecord.

    Each record is a `tf.train.Example` with `image/encoded`, `image/filename` and, where the source
    has labels, `image/class/label`. Files get their names when all are whole.

    Args:
        source: `datasets.Source` of encoded images.
        output: folder, local or gs://.
        shards: number of files, at most one for each image.

    Returns:
        Glob of the files, for `tfrecord:GLOB`.

    Raises:
        ValueError: for a number of shards out of range, or an output that has such files already.
    """
    if not 1 <= shards <= source.num_examples:
        raise ValueError(
            f"`--shards` must be in 1..{source.num_examples}, the number of images. "
            f"Received: {shards}."
        )
    pattern = os.path.join(output, "images-*.tfrecord")
    if tf.io.gfile.glob(pattern):
        raise ValueError(f"There must be no {pattern} yet. Name another folder, or remove them.")
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
    for path in paths:  # at the end: part of the shards must not pass for all
        tf.io.gfile.rename(path + ".tmp", path, overwrite=True)
    return pattern


def _example(encoded, name, label):
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[name])),
    }
    if label is not None:
        numbers = tf.train.Int64List(value=[label])
        features["image/class/label"] = tf.train.Feature(int64_list=numbers)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def run():
    """Starts the command with the arguments of the process."""
    parser = argparse.ArgumentParser(prog="python -m moco_tf convert")
    parser.add_argument("source", help="folder:DIR")
    parser.add_argument("output", help="folder for the shards, local or gs://")
    parser.add_argument("--shards", type=int, required=True, help="number of files")
    args = parser.parse_args()
    kind, _, rest = args.source.partition(":")
    try:
        if kind != "folder":
            raise ValueError(f"The source must be folder:DIR. Received: {args.source!r}.")
        pattern = convert(folder.open(rest), args.output, args.shards)
    except (ValueError, OSError, tf.errors.OpError) as error:
        sys.exit(f"convert: {error}")
    print(f"--config.data.source=tfrecord:{pattern}")
