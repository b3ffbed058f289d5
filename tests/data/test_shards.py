"""Many shards: manifest, count, and resuming within an epoch without reading it again."""

import json
import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from moco_tf.commands.convert import convert
from moco_tf.data import sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.sources import manifest
from moco_tf.data.sources.interleave import state_after
from moco_tf.data.tfdata import examples

RECORDS = (3, 0, 7, 1, 4, 4, 0, 9, 2, 5, 5, 1, 3, 6, 2, 2, 8, 1, 0, 4, 6, 3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Shards of these numbers of records, of 10 kB each, and a glob of them."""
    root = tmp_path_factory.mktemp("shards")
    for shard, count in enumerate(RECORDS):
        with tf.io.TFRecordWriter(str(root / f"{shard:02}.tfrecord")) as writer:
            for i in range(count):
                writer.write(f"{shard} {i} ".encode() + bytes(10_000))
    return root


@pytest.fixture
def converted(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    png = [tf.io.encode_png(image).numpy() for image in images]
    source = sources.from_bytes(png, [f"{i}.png" for i in range(10)], labels=range(10))
    return convert(source, str(tmp_path / "out"), shards=4), images


def interleaved(shards, read, counts, cycle):
    """Records of an interleave, from open shards on: slot by slot, an ended shard costs a turn."""
    waiting = [iter(range(r, n)) for r, n in zip(read, counts)]
    shard_of = dict(zip(map(id, waiting), shards))
    slots, waiting = waiting[:cycle], waiting[cycle:]
    records = []
    while any(slots):
        for i, slot in enumerate(slots):
            record = next(slot, None) if slot else None
            if record is not None:
                records.append((shard_of[id(slot)], record))
            elif slot:
                slots[i] = waiting.pop(0) if waiting else None
    return records


def interleaved_by_tf_data(counts, cycle):
    def records(shard, count):
        return tf.data.Dataset.range(count).map(lambda i: (shard, i))

    data = tf.data.Dataset.from_tensor_slices((np.arange(len(counts)), counts))
    data = data.interleave(records, cycle, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return list(data.as_numpy_iterator())


def test_an_interleave_goes_on_where_it_was_as_tf_data_does():
    rng = np.random.default_rng(0)
    for case in range(40):
        counts = rng.integers(0, 5, rng.integers(1, 12))
        cycle = min(4, len(counts))
        every = interleaved(range(len(counts)), 0 * counts, counts, cycle)
        if case < 4:
            assert every == interleaved_by_tf_data(counts, cycle)
        for position in range(len(every)):
            state = state_after(position, counts, cycle)
            following = range(state.opened, len(counts))
            order = [*state.shards, *following]
            read = [*state.read, *(0 for _ in following)]
            assert interleaved(order, read, counts[order], cycle) == every[position:]


def rows(source, start_step, count, shuffle_buffer=16, **kwargs):
    data = examples(
        source,
        BatchLayout(8),
        seed=1,
        shuffle_buffer=shuffle_buffer,
        start_step=start_step,
        **kwargs,
    )
    return [
        (int(slot), key[:8])
        for chunk in data.take(count).as_numpy_iterator()
        for slot, key in zip(chunk["slot"], chunk["key"], strict=True)
    ]


def test_a_stream_resumes_at_any_step_whatever_the_shards_hold(shards):
    source = sources.open_source(f"tfrecord:{shards}/*.tfrecord")
    assert source.num_examples == sum(RECORDS) == 76
    every = rows(source, 0, 20)  # two epochs and more
    for step in (5, 9, 16):
        assert rows(source, step, 20 - step) == every[8 * step :]


def test_a_host_with_few_records_resumes_within_their_repetition(shards):
    source = sources.open_source(f"tfrecord:{shards}/*.tfrecord")
    options = {"host": 0, "shard_files": True}
    layout = BatchLayout(16, replicas=2, hosts=2)
    fewer = sources.Stream(120, source.shards, source.parse)  # than an epoch of its host needs

    def keys(start_step, count):
        data = examples(fewer, layout, seed=1, shuffle_buffer=8, start_step=start_step, **options)
        return [x["key"].tolist() for x in data.take(count).as_numpy_iterator()]

    every = keys(0, 12)
    assert keys(6, 6) == every[6:]


def read_bytes():
    (count,) = re.findall(r"rchar: (\d+)", pathlib.Path("/proc/self/io").read_text())
    return int(count)


@pytest.mark.parametrize(
    ("shards", "share"), [(256, 0.3), pytest.param(4096, 1 / 50, marks=pytest.mark.slow)]
)
def test_a_resumed_stream_reads_no_shards_that_the_epoch_has_passed(shards, share, tmp_path):
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(tmp_path / f"{shard:04}")) as writer:
            for i in range(8):
                writer.write(f"{shard} {i} ".encode() + bytes(10_000))
    source = sources.open_source(f"tfrecord:{tmp_path}/*")
    total = sum(path.stat().st_size for path in tmp_path.iterdir())
    before = read_bytes()
    step = int(0.9 * shards)
    first = rows(source, step, 1)
    read = read_bytes() - before
    # The open shards, those that follow, and what is read ahead: not the 90 % before.
    assert read < share * total, (read, total)
    records = tuple((path, 0, -1) for path, _, _ in source.shards)
    assert first == rows(sources.Stream(8 * shards, records, None), step, 1)


def test_convert_writes_a_manifest_that_spares_reading(converted, monkeypatch):
    pattern, images = converted
    content = json.loads((pathlib.Path(pattern).parent / "manifest.json").read_text())
    assert [entry["records"] for entry in content["shards"].values()] == [3, 3, 2, 2]
    assert content["sample"]["height_px"] == 8 and len(content["sample"]["names"]) == 10
    np.testing.assert_allclose(content["sample"]["mean"], images.mean((0, 1, 2)) / 255, atol=1e-4)
    monkeypatch.setattr(manifest, "count", None)  # would be called
    source = sources.open_source(f"tfrecord:{pattern}")
    assert source.num_examples == 10 and source.is_counted
    two = pattern.replace("*", "0000[01]*")
    assert sources.open_source(f"tfrecord:{two}").num_examples == 6
    with pytest.raises(ValueError, match=r"that of manifest.json, 10. Received: 11"):
        sources.open_source(f"tfrecord:{pattern}", num_examples=11)


def test_missing_added_and_truncated_shards_are_named(converted):
    pattern, _ = converted
    folder = pathlib.Path(pattern).parent
    first, second, *_ = sorted(folder.glob("*.tfrecord"))
    first.write_bytes(first.read_bytes()[:-1])
    second.rename(folder / "images-more.tfrecord")
    with pytest.raises(ValueError) as error:
        sources.open_source(f"tfrecord:{pattern}")
    assert f"missing: {second};" in str(error.value)
    assert f"not in the manifest: {folder}/images-more.tfrecord;" in str(error.value)
    assert f"cut short: {first}." in str(error.value)


def test_a_count_is_kept_with_the_run_and_held_against_the_shards(converted, tmp_path, monkeypatch):
    pattern, _ = converted
    shard, *_ = sorted(pathlib.Path(pattern).parent.glob("*.tfrecord"))
    (shard.parent / "manifest.json").unlink()
    index_dir = str(tmp_path / "run" / "sources")
    assert sources.open_source(f"tfrecord:{pattern}", index_dir=index_dir).num_examples == 10
    monkeypatch.setattr(manifest, "count", None)
    assert sources.open_source(f"tfrecord:{pattern}", index_dir=index_dir).num_examples == 10
    shard.write_bytes(shard.read_bytes() * 2)
    with pytest.raises(ValueError, match=f"of another size, perhaps cut short: {shard}"):
        sources.open_source(f"tfrecord:{pattern}", index_dir=index_dir)


def test_a_test_set_of_some_classes_is_numbered_as_the_training_images(tmp_path):
    for split, names in (("train", "abc"), ("test", "c")):
        for name in names:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            pixels = np.full((4, 4, 3), ord(name), np.uint8)
            (folder / "0.png").write_bytes(tf.io.encode_png(pixels).numpy())
        source = sources.open_source(f"folder:{tmp_path}/{split}")
        convert(source, str(tmp_path / f"{split} shards"), shards=1)
    train, test = (
        sources.open_source(f"tfrecord:{tmp_path}/{s} shards/*") for s in ("train", "test")
    )
    assert train.classes == ("a", "b", "c") and test.classes == ("c",)
    test = sources.renumber_labels(test, like=train)
    assert [int(test.label(record)) for record in test.keys()] == [2]  # noqa: SIM118 no dict
