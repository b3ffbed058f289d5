"""Files that are no images, or not what they say: counted and named, never a crash or a hang."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import announcing, encode, random_image
from PIL import Image

from moco_tf.data import image_ops, sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.labelled import evaluation_dataset
from moco_tf.data.recipes import moco
from moco_tf.data.two_views import two_view_dataset

RGB = Image.fromarray(random_image(0, 24, 31))

SEEDS = {
    "jpg": encode(RGB, "JPEG"),
    "png": encode(RGB, "PNG"),
    "webp": encode(RGB, "WEBP"),
    "bmp": encode(RGB, "BMP"),
}
GOOD = {
    "cmyk.jpg": encode(RGB.convert("CMYK"), "JPEG"),
    "gray.png": encode(RGB.convert("L"), "PNG"),
    "16bit.png": encode(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"),
    "gif.png": encode(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)]),  # first frame
    "wrong_ending.png": SEEDS["jpg"],
    "1x1.png": encode(RGB.crop((0, 0, 1, 1)), "PNG"),
    **{f"good{i}.{kind}": content for i, (kind, content) in enumerate(SEEDS.items())},
}


def bad_files(count):
    """Names and contents of files that cannot be decoded."""
    rng = np.random.default_rng(0)
    kinds = list(SEEDS)
    files = {}
    for i in range(count):
        kind = kinds[i % len(kinds)]
        content = SEEDS[kind]
        files[f"bad{i:04}.{kind}"] = [
            lambda c: c[: rng.integers(1, len(c) // 3)],  # cut
            lambda c: b"",
            lambda c: rng.bytes(rng.integers(1, 400)),
            lambda c: b"\0" * len(c),
            lambda c: b"<html>not found</html>",
            lambda c: rng.bytes(20) + c[20:],  # the header is gone
            lambda c: announcing("PNG", 60_000, 60_000),
            lambda c: announcing("JPEG", 60_000, 60_000),
        ][i // len(kinds) % 8](content)
    return files


@pytest.fixture(scope="module", params=[100, pytest.param(1000, marks=pytest.mark.slow)])
def folder(request, tmp_path_factory):
    """Bad files among as many good ones; `root` is named by their number."""
    root = tmp_path_factory.mktemp("images") / str(request.param)
    root.mkdir()
    for name, content in bad_files(request.param).items():
        (root / name).write_bytes(content)
    for i in range(request.param // 10):
        for name, content in GOOD.items():
            (root / f"{i:02}{name}").write_bytes(content)
    return root


def test_bad_files_are_found_each_once(folder):
    source = sources.open_source(f"folder:{folder}")
    assert source.num_examples == 2 * int(folder.name)
    data = evaluation_dataset(source, image_size_px=8, resize_px=9, batch=50)
    ok = np.concatenate([batch["ok"] for batch in data.as_numpy_iterator()])
    names = [source.name(i).numpy().decode() for i in range(source.num_examples)]
    wrong = [n for n, is_ok in zip(names, ok, strict=True) if is_ok == ("bad" in n)]
    assert not wrong


def test_training_replaces_and_names_them_all(folder):
    source = sources.open_source(f"folder:{folder}")
    layout = BatchLayout(batch=20)
    data = two_view_dataset(source, moco.v1, layout, image_size_px=8, augment_on="device")
    named = set()
    for batch in data.take(source.num_examples // 20).as_numpy_iterator():  # an epoch
        for name, ok in zip(batch["name"], batch["ok"], strict=True):
            name = bytes(name).rstrip(b"\0").decode()
            assert ok == ("bad" not in name)
            named |= set() if ok else {name}
        assert (batch["x_q"].max(axis=(1, 2, 3)) > 0).all()  # no black image
    assert len(named) == int(folder.name)


@pytest.mark.slow
def test_the_run_stops_and_says_how_many_and_which(folder, tmp_path):
    flags = {"data.source": f"folder:{folder}", "stop_after_steps": 100, "epochs": 1}
    output = tiny.run(tiny.command(tmp_path / "run", **flags), code=1)
    assert "may be undecodable" in output and "Traceback" not in output
    assert re.search(r"Replaced an image that cannot be decoded: bad\d{4}", output)


@settings(
    max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(
    kind=st.sampled_from(sorted(SEEDS)),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    end=st.integers(0, 4000),
    extra=st.binary(max_size=40),
)
def test_any_damage_gives_an_image_or_an_error(kind, changes, end, extra):
    content = bytearray(SEEDS[kind])
    for place, value in changes:
        content[place % len(content)] = value
    content = bytes(content[:end]) + extra
    try:
        image = image_ops.decode(tf.constant(content)).numpy()
    except tf.errors.InvalidArgumentError:
        return
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    resized = image_ops.resize_and_center_crop(tf.constant(image), 9, 8)
    assert resized.shape == (8, 8, 3)


def write_records(path, kinds):
    """A TFRecord file of examples named n0, n1, ...: "good", or what is wrong with them."""

    def feature(kind, value):
        make = getattr(tf.train, f"{kind.title()}List")
        return tf.train.Feature(**{f"{kind}_list": make(value=value)})

    with tf.io.TFRecordWriter(str(path)) as writer:
        for i, kind in enumerate(kinds):
            features = {
                "image/encoded": feature("bytes", [SEEDS["png"]]),
                "image/filename": feature("bytes", [f"n{i}".encode()]),
                "image/class/label": feature("int64", [i]),
            }
            if kind == "nan image":
                features["image/encoded"] = feature("float", [np.nan] * 12)
            elif kind == "nan label":
                features["image/class/label"] = feature("float", [np.nan])
            elif kind == "two images":
                features["image/encoded"] = feature("bytes", [SEEDS["png"]] * 2)
            elif kind == "no image":
                del features["image/encoded"]
            example = tf.train.Example(features=tf.train.Features(feature=features))
            garbage = b"\xff\xffgarbage"
            writer.write(garbage if kind == "garbage" else example.SerializeToString())


KINDS = ["nan image", "good", "nan label", "two images", "no image", "garbage", *["good"] * 14]


def records_of_an_epoch(address, batch):
    source = sources.open_source(address)
    data = two_view_dataset(
        source, moco.v1, BatchLayout(batch), image_size_px=8, augment_on="device"
    )
    rows = []
    for part in data.take(source.num_examples // batch).as_numpy_iterator():
        names = [bytes(name).rstrip(b"\0").decode() for name in part["name"]]
        rows += zip(names, part["ok"], strict=True)
    return rows


def evaluated(address):
    """Which images an evaluation can read."""
    source = sources.open_source(address)
    data = evaluation_dataset(source, image_size_px=8, resize_px=9, batch=10)
    return np.concatenate([batch["ok"] for batch in data.as_numpy_iterator()])


def test_bad_records_are_counted_and_named(tmp_path):
    write_records(tmp_path / "a.tfrecord", KINDS)
    (tmp_path / "empty.tfrecord").write_bytes(b"")
    rows = records_of_an_epoch(f"tfrecord:{tmp_path}/*.tfrecord", batch=10)
    # Pre-training does not read labels; of garbage not even the name can be read.
    assert sorted(name for name, ok in rows if not ok) == ["", "n0", "n3", "n4"]
    assert sorted(name for name, ok in rows if ok) == sorted(
        f"n{i}" for i, kind in enumerate(KINDS) if kind in ("good", "nan label")
    )
    expected = [kind == "good" for kind in KINDS]
    np.testing.assert_array_equal(evaluated(f"tfrecord:{tmp_path}/*.tfrecord"), expected)


def damaged_shards(root, records):
    """Three shards, a bit of the sixth record of the second of which is wrong."""
    for shard in range(3):
        write_records(root / f"{shard}.tfrecord", ["good"] * records)
    content = bytearray((root / "1.tfrecord").read_bytes())
    content[len(content) // records * 5 + 100] ^= 1
    (root / "1.tfrecord").write_bytes(content)
    return f"tfrecord:{root}/?.tfrecord"


def test_records_after_a_wrong_checksum_are_lost_but_move_no_other(tmp_path):
    address = damaged_shards(tmp_path, records=20)
    rows = records_of_an_epoch(address, batch=10)
    bad = [name for name, ok in rows if not ok]
    assert len(bad) == 15 and len(rows) == 60
    assert all(name.endswith("1.tfrecord, after a record that cannot be read") for name in bad)
    expected = np.repeat([True, False, True], [25, 15, 20])
    np.testing.assert_array_equal(evaluated(address), expected)


def test_a_wrong_checksum_ends_a_run_that_does_not_know_how_many_are_lost(tmp_path):
    flags = {"data.source": damaged_shards(tmp_path, records=20), "data.num_examples": 60}
    output = tiny.run(tiny.command(tmp_path / "run", **flags, epochs=2), code=1)
    assert "\ncorrupted record at" in output and "Traceback" not in output
