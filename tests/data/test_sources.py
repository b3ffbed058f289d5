"""Sources: folders, TFRecords, TFDS, arrays."""

import io
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
import tiny
from PIL import Image

from moco_tf.data import image_ops, sources, tfdata
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.recipes.recipe import IMAGENET, RandomResizedCrop, Recipe
from moco_tf.data.sources import manifest, synthetic
from moco_tf.data.two_views import two_view_dataset

LAYOUT = BatchLayout(8, group=4)
RECIPE = Recipe(RandomResizedCrop((0.2, 1.0)), (), **IMAGENET)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images():
    return synthetic.shapes(24, seed=5)


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("folder")
    for i, (image, label) in enumerate(zip(*images, strict=True)):
        path = root / "train" / f"class{label}" / "deep" / f"{i:02}.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
    (root / "train" / "notes.txt").write_text("not an image")
    (root / "val" / "class0").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def shards(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        with tf.io.TFRecordWriter(str(root / f"a-{shard}.tfrecord")) as writer:
            for i in range(shard * 8, shard * 8 + 8):
                feature = {
                    "image/encoded": _bytes(png(images[0][i])),
                    "image/filename": _bytes(f"image-{i}".encode()),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
    return root


def _bytes(value):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def batches(source, count, layout=None, **kwargs):
    layout = layout or LAYOUT
    options = {"image_size_px": 16, "jit_compile": False, **kwargs}
    data = two_view_dataset(source, RECIPE, layout, **options)
    return list(data.take(count).as_numpy_iterator())


def first_names(source, count, layout=LAYOUT, **options):
    """The names of a host's first images, in order."""
    options = {"seed": 0, "shuffle_buffer": 6, **options}
    data = tfdata.examples(source, layout, **options).unbatch().take(count)
    return [source.name(x["key"]).numpy().decode() for x in data]


def names(batch):
    return [bytes(n).rstrip(b"\0").decode() for n in batch["name"]]


def test_folder_reads_any_depth_and_takes_labels_from_the_first_level(folder, images):
    source = sources.open_source(f"folder:{folder}/train")
    assert source.num_examples == 24
    for index in (0, 23):
        name = source.name(index).numpy().decode()
        number = int(name.split("/")[-1].split(".")[0])
        np.testing.assert_array_equal(image_ops.decode(source.read(index)), images[0][number])
        assert source.labels[index] == sorted(set(images[1])).index(images[1][number])
    assert sources.labelled_splits(f"folder:{folder}/train") == (
        f"folder:{folder}/train",
        f"folder:{folder}/val",
    )


def test_a_flat_folder_has_no_labels(tmp_path, images):
    (tmp_path / "a.png").write_bytes(png(images[0][0]))
    assert sources.open_source(f"folder:{tmp_path}").labels is None
    assert sources.labelled_splits(f"folder:{tmp_path}") is None


def test_an_unreadable_file_is_replaced_like_an_undecodable_one(folder):
    source = sources.open_source(f"folder:{folder}/train")
    gone = next((folder / "train").rglob("03.PNG"))
    content = gone.read_bytes()
    gone.unlink()
    try:
        seen = batches(source, 3)
    finally:
        gone.write_bytes(content)
    bad = [n for b in seen for n, ok in zip(names(b), b["ok"], strict=True) if not ok]
    assert [n.split("/")[-1] for n in bad] == ["03.PNG"]


def test_tfrecords_give_every_record_once_an_epoch_in_a_new_order(shards):
    source = sources.open_source(f"tfrecord:{shards}/a-*.tfrecord")
    assert source.num_examples == 24
    seen = first_names(source, 48)
    first, second = seen[:24], seen[24:]
    assert sorted(first) == sorted(second) == sorted(f"image-{i}" for i in range(24))
    assert first != second and first != sorted(first)


def test_tfrecords_resume_at_any_step_and_split_over_hosts(shards):
    source = sources.open_source(f"tfrecord:{shards}/a-*.tfrecord")
    whole = first_names(source, 40)
    for step in (1, 4):  # in the first epoch and in the second
        assert first_names(source, 8, start_step=step) == whole[8 * step : 8 * step + 8]
    hosts = [first_names(source, 8, BatchLayout(8, 2, 2, 2), host=h) for h in (0, 1)]
    assert [*hosts[0][:4], *hosts[1][:4], *hosts[0][4:], *hosts[1][4:]] == whole[:16]


def test_shard_files_gives_each_host_files_of_its_own(shards):
    source = sources.open_source(f"tfrecord:{shards}/a-*.tfrecord")
    second = first_names(source, 8, BatchLayout(8, 2, 2, 2), host=1, shard_files=True)
    assert set(second) == {f"image-{i}" for i in range(8, 16)}


def test_shard_files_resumes_where_a_host_has_few_records(shards):
    source = sources.open_source(f"tfrecord:{shards}/a-*.tfrecord")
    layout, kwargs = BatchLayout(8, 2, 2, 2), dict(host=1, shard_files=True)
    whole = first_names(source, 24, layout, **kwargs)  # two epochs of 12, of 8 that it has
    assert first_names(source, 8, layout, start_step=4, **kwargs) == whole[16:]
    with pytest.raises(ValueError, match="at least one file for each host. Received: 3 files, 4"):
        first_names(source, 1, BatchLayout(8, 4, 4), host=0, shard_files=True)


def test_records_without_an_image_are_bad_images(tmp_path, images):
    with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
        for i in range(8):
            feature = {"image/encoded": _bytes(png(images[0][i]))} if i else {}
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    batch = batches(sources.open_source(f"tfrecord:{tmp_path}/x"), 1)[0]
    assert (~batch["ok"]).sum() == 1


def test_a_truncated_shard_is_an_error(shards, tmp_path):
    whole = (shards / "a-0.tfrecord").read_bytes()
    (tmp_path / "x").write_bytes(whole[:-5])
    (entry,) = manifest.count([str(shards / "a-0.tfrecord")]).values()
    assert entry == {"records": 8, "bytes": len(whole)}
    with pytest.raises(ValueError, match="end after a record.*truncated"):
        manifest.count([str(tmp_path / "x")])


@pytest.fixture(scope="module")
def tfds_dir(images, tmp_path_factory):
    """Two tiny data sets as TFDS prepares them: images of one size, and of any size."""
    tfds = pytest.importorskip("tensorflow_datasets")
    root = str(tmp_path_factory.mktemp("tfds"))

    def build(name, shape):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=8),
            }
        )
        splits = {
            split: tf.data.Dataset.from_tensor_slices(
                {"image": images[0][:count], "label": images[1][:count]}
            )
            for split, count in (("train", 16), ("test", 8))
        }
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name, version="1.0.0", features=features, split_datasets=splits, data_dir=root
        )

    build("tiny_fixed", (32, 32, 3))
    build("tiny_free", (None, None, 3))
    return root


def test_tfds_images_of_one_size_are_held_in_memory(tfds_dir, images):
    source = sources.open_source("tfds:tiny_fixed", data_dir=tfds_dir)
    assert isinstance(source, sources.Source) and source.num_examples == 16
    wanted = {x.tobytes(): y for x, y in zip(images[0][:16], images[1][:16], strict=True)}
    for i in range(16):
        assert wanted.pop(source.read(i).numpy().tobytes()) == source.labels[i]
    assert sources.labelled_splits("tfds:tiny_fixed", tfds_dir) == (
        "tfds:tiny_fixed:train",
        "tfds:tiny_fixed:test",
    )


def test_tfds_images_of_any_size_are_streamed(tfds_dir):
    source = sources.open_source("tfds:tiny_free:train", data_dir=tfds_dir)
    assert isinstance(source, sources.Stream) and source.num_examples == 16
    assert all(b["ok"].all() for b in batches(source, 3))
    half = sources.open_source("tfds:tiny_free:train[:50%]", data_dir=tfds_dir)
    assert half.num_examples == 8


@pytest.mark.parametrize(
    "address, message",
    [
        ("nope", "must be one of .*folder:DIR.*Received: 'nope'"),
        ("folder:/does/not/exist", "which does not exist"),
        ("tfrecord:/does/not/exist*", "matches none"),
        ("tfrecord:{folder}", r"a folder. Did you mean tfrecord:.*/\*\.tfrecord\* \(1 files\)"),
        ("synthetic:shapes:nope", r"synthetic:{fabrics\|shapes}\[:train\|test\]"),
        ("tfds:no_such_data_set", "TFDS has prepared, or can download"),
        ("tfds:tiny_fixed:nope", "split must be one of"),
    ],
)
def test_a_wrong_address_says_what_is_right(address, message, tfds_dir, tmp_path):
    (tmp_path / "a.tfrecord-00000-of-00001").touch()
    with pytest.raises(ValueError, match=message):
        sources.open_source(address.format(folder=tmp_path), data_dir=tfds_dir)


def test_arrays_of_a_wrong_kind_are_refused():
    with pytest.raises(ValueError, match=r"uint8 array NxHxWx3. Received: float32"):
        sources.from_arrays(np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="as many as the images, 2. Received: 3"):
        sources.from_arrays(np.zeros((2, 4, 4, 3), np.uint8), [0, 1, 2])


# --- converting a folder to shards ---------------------------------------------------------


def convert(*args, code=0):
    return tiny.run([sys.executable, "-m", "moco_tf", "convert", *map(str, args)], code)


def test_a_folder_becomes_shards_of_the_same_bytes(folder, tmp_path):
    output = convert(f"folder:{folder}/train", tmp_path / "out", "--shards=5")
    files = sorted(p.name for p in (tmp_path / "out").glob("*.tfrecord"))
    assert files == [f"images-{i:05}-of-00005.tfrecord" for i in range(5)]
    assert f"--config.data.source=tfrecord:{tmp_path}/out/images-*.tfrecord" in output

    seen = {}
    for record in tf.data.TFRecordDataset([str(tmp_path / "out" / f) for f in files]):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        (name,), (encoded,), (label,) = (
            features["image/filename"].bytes_list.value,
            features["image/encoded"].bytes_list.value,
            features["image/class/label"].int64_list.value,
        )
        seen[name.decode()] = encoded, label
    paths = sorted((folder / "train").rglob("*.PNG"))
    assert seen.keys() == {str(p.relative_to(folder / "train")) for p in paths}
    classes = sorted({name.split("/")[0] for name in seen})
    for name, (encoded, label) in seen.items():
        assert encoded == (folder / "train" / name).read_bytes()
        assert classes[label] == name.split("/")[0]

    source = sources.open_source(f"tfrecord:{tmp_path}/out/*")
    assert sorted(first_names(source, 24)) == sorted(seen)


@pytest.mark.parametrize(
    ("source", "shards", "message"),
    [
        ("tfds:mnist", 2, "The source must be folder:DIR.* Received: 'tfds:mnist'"),
        ("folder:{}/train", 25, r"`--shards` must be in 1\.\.24.* Received: 25"),
        ("folder:{}/nothing", 2, "which does not exist"),
    ],
)
def test_convert_refuses_what_it_cannot_do(source, shards, message, folder, tmp_path):
    output = convert(source.format(folder), tmp_path / "out", f"--shards={shards}", code=1)
    assert re.search(message, output) and "Traceback" not in output
    assert not (tmp_path / "out").exists()


def test_convert_leaves_shards_alone_that_are_there(folder, tmp_path):
    (tmp_path / "images-old.tfrecord").write_text("precious")
    output = convert(f"folder:{folder}/train", tmp_path, "--shards=2", code=1)
    assert "must have no shards" in output
    assert [p.name for p in tmp_path.iterdir()] == ["images-old.tfrecord"]
