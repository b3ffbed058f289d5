"""Kills within a long epoch and a long extraction: what is done is not read or done again."""

import pathlib
import re
import signal
import time

import evaluations
import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf.data.sources import manifest

BATCH = 16
SHARDS, RECORDS = 4096, 8
RECORD_BYTES = 10_000
STEPS_OF_EPOCH = SHARDS * RECORDS // BATCH
SAVED = int(0.9 * STEPS_OF_EPOCH) // 8 * 8
READ_SHARE = 1 / 50  # of the data, at most, by a resumed run
FILE_ROWS = 8192  # images in a file of features
IMAGES = 20_000
EXTRACTION_S = 400


def write_shards(folder, shards, records, padding=0):
    """Random PNGs of 8 px in TFRecords with a manifest; returns their address.

    Args:
        folder: to write to.
        shards: number of files.
        records: number of images in each.
        padding: bytes after the end of each PNG, which decoders skip.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    entries = {}
    for shard in range(shards):
        path = folder / f"{shard:05}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for image in rng.integers(0, 256, (records, 8, 8, 3), np.uint8):
                label = tf.train.Int64List(value=[int(image[0, 0, 0]) % 3])
                encoded = tf.io.encode_png(image).numpy() + bytes(padding)
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


def read_bytes():
    """Bytes that this process has read, from the page cache, too."""
    (count,) = re.findall(r"rchar: (\d+)", pathlib.Path("/proc/self/io").read_text())
    return int(count)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_at_nine_tenths_of_an_epoch_reads_only_what_follows(tmp_path, record_property):
    source = write_shards(tmp_path / "data", SHARDS, RECORDS, RECORD_BYTES)
    total = SHARDS * RECORDS * RECORD_BYTES
    options = {
        "data.source": source,
        "data.shuffle_buffer": 64,
        "batch_size": BATCH,
        "log_every_steps": 4,
        "checkpoint_every_steps": SAVED,
        "stop_after_steps": SAVED + 8,
    }
    workdir = tmp_path / "run"
    tiny.run_to_signal(tiny.command(workdir, **options), "SIGKILL", SAVED + 4)
    killed = tiny.losses(workdir)
    assert len(killed) >= SAVED + 4
    # Eight steps each; a new run shows what is read beside the images that were seen before.
    read = {}
    for folder, last in ((tmp_path / "new", 8), (workdir, SAVED + 8)):
        before = read_bytes()
        assert tiny.pretrain(folder, **options | {"stop_after_steps": last}) == last
        read[folder] = read_bytes() - before
    more = read[workdir] - read[tmp_path / "new"]
    record_property("seen", f"a resumed run read {more / 1e6:.1f} of {total / 1e6:.0f} MB more")
    tiny.assert_each_step_once(workdir, SAVED + 8)
    np.testing.assert_array_equal(tiny.losses(workdir)[: len(killed)], killed)
    assert more < READ_SHARE * total, (read, total)


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

    def whole_files():
        return sum("-ok-" in name for name in files("killed"))

    process, deadline = start("killed"), time.time() + EXTRACTION_S
    while whole_files() < IMAGES // (2 * FILE_ROWS):
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
