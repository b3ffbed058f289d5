"""Crops with labels, and every image once, in order, with its label."""

import numpy as np
import pytest
import tensorflow as tf

from moco_tf.data import sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.labelled import center_crops, evaluation_dataset, labelled_dataset
from moco_tf.data.recipes import moco, standard
from moco_tf.data.sources import synthetic

IMAGES, LABELS = synthetic.shapes(50, seed=3)
CROP = {"image_size_px": 32, "resize_px": 32}


def encoded(bad=()):
    """The images as PNGs, some cut short."""
    pngs = [tf.io.encode_png(image).numpy() for image in IMAGES]
    pngs = [png[:40] if i in bad else png for i, png in enumerate(pngs)]
    return sources.from_bytes(pngs, [f"{i}.png" for i in range(50)], LABELS)


def write_shards(folder, shards, records):
    """Shards with labels; their names and labels, in order."""
    names, labels = [], []
    for shard in range(shards):
        with tf.io.TFRecordWriter(str(folder / f"{shard}.tfrecord")) as writer:
            for i in range(shard * records, (shard + 1) * records):
                names.append(f"{i}.png")
                labels.append(int(LABELS[i]))
                png = tf.io.encode_png(IMAGES[i]).numpy()
                example = tf.train.Example()
                feature = example.features.feature
                feature["image/encoded"].bytes_list.value.append(png)
                feature["image/filename"].bytes_list.value.append(names[-1].encode())
                feature["image/class/label"].int64_list.value.append(labels[-1])
                writer.write(example.SerializeToString())
    return names, labels


def joined(data):
    batches = list(data.as_numpy_iterator())
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def test_evaluation_covers_every_image_once_in_order():
    source = sources.from_arrays(IMAGES, LABELS)
    whole = joined(evaluation_dataset(source, batch=16, **CROP))
    assert whole["ok"].all() and len(whole["x"]) == 64
    np.testing.assert_array_equal(whole["x"], np.concatenate([IMAGES, IMAGES[:14]]))
    np.testing.assert_array_equal(whole["label"], np.concatenate([LABELS, LABELS[:14]]))
    halves = [
        joined(evaluation_dataset(source, batch=16, rows=slice(h, h + 8), **CROP)) for h in (0, 8)
    ]
    for name in whole:
        parts = [half[name].reshape(-1, 8, *whole[name].shape[1:]) for half in halves]
        want = whole[name].reshape(-1, 16, *whole[name].shape[1:])
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), want)


def test_evaluation_marks_what_it_cannot_decode():
    whole = joined(evaluation_dataset(encoded(bad={4, 11}), batch=50, **CROP))
    assert list(np.flatnonzero(~whole["ok"])) == [4, 11]
    np.testing.assert_array_equal(whole["x"][whole["ok"]], np.delete(IMAGES, [4, 11], axis=0))


def test_a_stream_is_evaluated_in_the_order_of_its_records(tmp_path):
    names, labels = write_shards(tmp_path, shards=3, records=7)
    source = sources.open_source(f"tfrecord:{tmp_path}/*")
    whole = joined(evaluation_dataset(source, batch=6, image_size_px=16, resize_px=16))
    np.testing.assert_array_equal(whole["label"][:21], labels)
    np.testing.assert_array_equal(whole["label"][21:], labels[:3])
    got = [n.decode() for n in source.keys().map(source.name).as_numpy_iterator()]
    assert got == names
    some = center_crops(source, np.array([2, 9, 20]), 16, 16)
    np.testing.assert_array_equal(some, whole["x"][[2, 9, 20]])


def test_training_crops_bring_their_labels_also_where_one_was_replaced():
    source, layout = encoded(bad={4, 11}), BatchLayout(10, 1, 2)
    crop = standard.training_crop(moco.v2)
    assert crop.crop.scale == (0.08, 1.0) and crop.mean == moco.v2.mean
    data = labelled_dataset(source, crop, layout, image_size_px=16, seed=1)
    parts = list(data.take(20).as_numpy_iterator())
    seen = []
    for part in parts:
        assert part["x"].shape == (5, 16, 16, 3) and part["x"].dtype == np.uint8
        for ok, name, label in zip(part["ok"], part["name"], part["label"], strict=True):
            number = int(bytes(name).rstrip(b"\0").decode().split(".")[0])
            seen.append(number)
            assert ok == (number not in (4, 11))
            if ok:
                assert label == LABELS[number]
        if not part["ok"].all() and part["ok"].any():
            # The next good one of the same replica's rows stands in, label and all.
            bad = int(np.flatnonzero(~part["ok"])[0])
            order = [(bad + i) % 5 for i in range(5)]
            donor = next(i for i in order if part["ok"][i])
            assert part["label"][bad] == part["label"][donor]
    # Two epochs of five steps of two parts: each image once in each.
    assert sorted(seen[:50]) == sorted(seen[50:]) == list(range(50))
    again = next(
        iter(labelled_dataset(source, crop, layout, image_size_px=16, seed=1, start_step=7))
    )
    np.testing.assert_array_equal(again["x"], parts[14]["x"])


def test_a_part_of_a_source_and_another_numbering():
    source = sources.from_arrays(IMAGES, LABELS)
    chosen = np.array([3, 7, 30])
    part = source.subset(chosen).relabelled(np.arange(8)[::-1].copy())
    assert part.num_examples == 3
    np.testing.assert_array_equal(part.image(1), IMAGES[7])
    np.testing.assert_array_equal(part.labels, 7 - LABELS[chosen])
    assert part.label(2).numpy() == 7 - LABELS[30]
    with pytest.raises(tf.errors.InvalidArgumentError):
        part.image(3)
