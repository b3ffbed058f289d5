"""A kill within a long extraction: what was done is not done again."""

import re
import signal
import time

import evaluations
import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf.data.sources import manifest

IMAGES = 20_000  # features are in files of 8,192
EXTRACTION_S = 400


def write_shards(folder, shards, records):
    """Random PNGs of 8 px in TFRecords with a manifest; returns their address.

    Args:
        folder: to write to.
        shards: number of files.
        records: number of images in each.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    entries = {}
    for shard in range(shards):
        path = folder / f"{shard:05}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for image in rng.integers(0, 256, (records, 8, 8, 3), np.uint8):
                label = tf.train.Int64List(value=[int(image[0, 0, 0]) % 3])
                encoded = tf.io.encode_png(image).numpy()
                feature = {
                    "image/encoded": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[encoded])
                    ),
                    "image/class/label": tf.train.Feature(int64_list=label),
                }
                features = tf.train.Features(feature=feature)
                writer.write(tf.train.Example(features=features).SerializeToString())
        entries[path.name] = {"records": records, "bytes": path.stat().st_size}
    manifest.write(str(folder), entries)
    return f"tfrecord:{folder}/*.tfrecord"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_extraction_killed_half_way_goes_on(pretrained, tmp_path):
    train = write_shards(tmp_path / "train", 8, IMAGES // 8)
    test = write_shards(tmp_path / "test", 1, 100)
    data = (f"--config.data.train={train}", f"--config.data.test={test}")
    data += ("--config.data.num_classes=3",)

    def start(name):
        folder = f"--config.data.features_dir={tmp_path}/{name}-features"
        where = f"--workdir={tmp_path}/{name}"
        return tiny.start(evaluations.command("knn", pretrained, "", where, folder, *data))

    def files(name):
        return {path.name: path for path in (tmp_path / f"{name}-features").glob("*.npy")}

    process, deadline = start("killed"), time.time() + EXTRACTION_S
    while not files("killed"):
        assert process.poll() is None and time.time() < deadline, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {name: path.stat() for name, path in files("killed").items()}
    for name in ("killed", "whole"):
        process = start(name)
        output, _ = process.communicate(timeout=EXTRACTION_S)
        assert process.returncode == 0, output[-3000:]
    killed, whole = files("killed"), files("whole")
    assert len(kept) < len(whole) and killed.keys() == whole.keys()
    for name, path in whole.items():
        assert killed[name].read_bytes() == path.read_bytes(), name
    for name, stat in kept.items():
        after = killed[name].stat()
        assert (after.st_ino, after.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns), name
    scores = [(tmp_path / name / "results.json").read_text() for name in ("killed", "whole")]
    assert len({re.search(r'"metrics": \{.*?\}', s, re.S)[0] for s in scores}) == 1
