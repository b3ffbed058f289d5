"""Label maps: what is read, cropped and counted, against PIL, NumPy and scikit-learn."""

import io

import numpy as np
import pytest
import scenes
import tensorflow as tf
import tiny
from PIL import Image
from sklearn.metrics import confusion_matrix, jaccard_score

from moco_tf.data.batch_layout import BatchLayout
from moco_tf.segmentation import examination, label_png, pipeline, scoring, sources

FILL = (10, 20, 30)
CAMVID = tiny.DATA / "camvid" / "CamVid"


def png(array, mode=None, bits=8, **options):
    image = Image.fromarray(array)
    if mode == "P":
        image = Image.fromarray(array).convert("P")
        image.putdata(array.ravel().tolist())
        image.putpalette(np.random.default_rng(0).permutation(256).astype(np.uint8).tobytes() * 3)
        options["bits"] = bits
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"transparency": 0}])
def test_a_palette_gives_its_numbers_not_its_colors(bits, options):
    numbers = np.random.default_rng(bits).integers(0, 2**bits, (37, 53)).astype(np.uint8)
    encoded = png(numbers, "P", bits, **options)
    assert (encoded[24], encoded[25]) == (bits, 3)
    np.testing.assert_array_equal(label_png.decode(tf.constant(encoded)), numbers)


def test_grayscale_and_masks_give_their_numbers():
    numbers = np.random.default_rng(0).integers(0, 256, (20, 31)).astype(np.uint8)
    np.testing.assert_array_equal(label_png.decode(tf.constant(png(numbers))), numbers)
    mask = numbers > 99
    np.testing.assert_array_equal(label_png.decode(tf.constant(png(mask))), mask)


@pytest.mark.parametrize(
    "array, kind, message",
    [
        (np.zeros((4, 4, 3), np.uint8), "PNG", "one channel"),
        (np.zeros((4, 4), np.uint16), "PNG", "one channel, of at most 8 bits"),
        (np.zeros((4, 4), np.uint8), "JPEG", "must be a PNG"),
    ],
)
def test_other_files_are_no_label_maps(array, kind, message):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        label_png.decode(tf.constant(file.getvalue()))


def touch(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def data(tmp_path):
    """The same two scenes as each kind of source lays them out."""
    for i in range(2):
        image, label = scenes.scene(i)
        touch(tmp_path / "voc" / "JPEGImages" / f"{i}.jpg", image)
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            touch(tmp_path / "voc" / folder / f"{i}.png", label)
        city = tmp_path / "city"
        touch(city / "leftImg8bit" / "val" / "town" / f"{i}_leftImg8bit.png", image)
        touch(city / "gtFine" / "val" / "town" / f"{i}_gtFine_labelIds.png", label + 23)
        touch(tmp_path / "camvid" / "val" / f"{i}.png", image)
        touch(tmp_path / "camvid" / "valannot" / f"{i}.png", np.where(label == 3, 11, label))
    lists = tmp_path / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name in ("val", "train_aug"):
        (lists / f"{name}.txt").write_text("0\n1\n")
    return tmp_path


@pytest.mark.parametrize(
    "address, classes, table",
    [
        ("voc:{}/voc:val", 21, [0, 1, 2, 3]),
        ("voc:{}/voc:train_aug", 21, [0, 1, 2, 3]),
        ("cityscapes:{}/city:val", 19, [10, 11, 12, 13]),  # sky, person, rider, car
        ("camvid:{}/camvid:val", 11, [0, 1, 2, 255]),
        ("folders:{0}/camvid/val,{0}/voc/SegmentationClass", 4, [0, 1, 2, 3]),
    ],
)
def test_sources(address, classes, table, data):
    address = address.format(data)
    pairs = sources.open_pairs(address, 4 if "folders" in address else 0)
    assert pairs.num_examples == 2 and len(pairs.classes) == classes
    assert examination.check(pairs, address).tolist() == [[64, 80]] * 2
    for i in range(2):
        want = np.array(table)[scenes.scene(i)[1]]
        np.testing.assert_array_equal(pairs.label(tf.constant(i, tf.int64)), want)


def test_what_is_wrong_with_a_source_is_named(data):
    def opened(change):
        change()
        address = f"folders:{data}/camvid/val,{data}/camvid/valannot"
        examination.check(sources.open_pairs(address, 4, (11,)), address)

    labels = data / "camvid" / "valannot"
    opened(lambda: None)
    with pytest.raises(ValueError, match=r"numbers of no class .*0.png: has 7 in 100.0%"):
        opened(lambda: touch(labels / "0.png", np.full((64, 80), 7, np.uint8)))
    blank = np.full((64, 80), 255, np.uint8)
    with pytest.raises(ValueError, match="only ignored pixels .*must have pixels of a class"):
        opened(lambda: [touch(labels / f"{i}.png", blank) for i in range(2)])
    with pytest.raises(ValueError, match=r"0.png: \[10 10\] px, image \[64 80\] px"):
        opened(lambda: touch(labels / "0.png", np.zeros((10, 10), np.uint8)))
    with pytest.raises(ValueError, match="no PNG of one channel.*valannot/0.png: starts with b'no"):
        opened(lambda: (labels / "0.png").write_bytes(b"no"))
    with pytest.raises(ValueError, match=r"a label map of the same name.*without a pair: 0 \(1"):
        opened((labels / "0.png").unlink)
    with pytest.raises(ValueError, match="must exist. Missing: .*JPEGImages/1.jpg"):
        (data / "voc" / "JPEGImages" / "1.jpg").unlink()
        sources.open_pairs(f"voc:{data}/voc:val")
    for address, message in {
        "voc:/nope:val": "DIR a folder that exists",
        "camera:x": "must be one of voc:",
        f"folders:{data}": "must be folders:IMAGES_DIR,LABELS_DIR",
        f"camvid:{data}/camvid:test": "Received: none in",
        f"folders:{data}/camvid/val,{data}/voc/SegmentationClass": "must be the number of classes",
    }.items():
        with pytest.raises(ValueError, match=message):
            sources.open_pairs(address)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return sources.open_pairs(scenes.write(tmp_path_factory.mktemp("pairs"), 6), 4)


def batches(pairs, count, batch=4, start=0, host=0, hosts=1, **options):
    options = {"fill": FILL, "crop_px": 48, "scale": (0.5, 2.0), **options}
    layout = BatchLayout(batch, hosts, hosts)
    data = pipeline.segmentation_dataset(pairs, layout, host=host, start_step=start, **options)
    return list(data.take(count).as_numpy_iterator())


def test_crops_are_a_function_of_seed_and_step(pairs):
    whole = batches(pairs, 6)
    resumed = batches(pairs, 2, start=4)
    hosts = [batches(pairs, 6, host=h, hosts=2) for h in range(2)]
    for name in ("x", "label", "name"):
        np.testing.assert_array_equal([b[name] for b in whole[4:]], [b[name] for b in resumed])
        joined = [np.concatenate([b[name] for b in both]) for both in zip(*hosts)]
        np.testing.assert_array_equal([b[name] for b in whole], joined)
    assert (whole[0]["x"] != batches(pairs, 1, seed=1)[0]["x"]).any()
    assert all(batch["ok"].all() for batch in batches(pairs, 3, batch=16))  # more than images


def test_maps_move_with_their_images(pairs):
    for batch in batches(pairs, 12):
        inside = batch["label"] != sources.IGNORED
        assert (batch["x"][~inside] == FILL).all()
        distance = np.abs(batch["x"][inside][:, None] - scenes.COLORS.astype(float)).sum(axis=-1)
        agree = distance.argmin(axis=1) == batch["label"][inside]
        assert agree.mean() > 0.93  # all but the edges, which are blended
    labels = np.stack([batch["label"] for batch in batches(pairs, 40, scale=(0.5, 0.5))])
    assert (labels[:, :, 32:] == sources.IGNORED).all()  # 64 px are 32, the rest is padding
    assert (np.sum(labels != sources.IGNORED, axis=(2, 3)) == 32 * 40).all()


def test_half_of_the_crops_are_mirrored_and_scales_are_uniform(pairs):
    _, label = scenes.scene(0)
    first_pair = sources.Pairs(pairs.images[:1], pairs.labels[:1], pairs.classes, pairs.table)
    crops = batches(first_pair, 60, scale=(1.0, 1.0), crop_px=80)
    mirrored = [
        np.array_equal(row[:64], label[:, ::-1]) for batch in crops for row in batch["label"]
    ]
    straight = [np.array_equal(row[:64], label) for batch in crops for row in batch["label"]]
    assert all(np.logical_xor(mirrored, straight)) and 0.35 < np.mean(mirrored) < 0.65
    scaled = batches(first_pair, 60, scale=(0.5, 1.0), crop_px=80)
    heights = [np.any(row != 255, axis=1).sum() for batch in scaled for row in batch["label"]]
    assert 0.7 < np.mean(heights) / 64 < 0.8 and min(heights) < 36 and max(heights) > 60


def test_the_confusion_and_the_ious_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, (7, 20, 30))
    labels[rng.random(labels.shape) < 0.1] = sources.IGNORED
    predicted = np.where(
        rng.random(labels.shape) < 0.6, labels % 5, rng.integers(0, 5, labels.shape)
    )
    matrices = np.stack([scoring.confusion(a, b, 6) for a, b in zip(labels, predicted)])
    assert matrices.dtype == np.int64
    counted = labels != sources.IGNORED
    want = confusion_matrix(labels[counted], predicted[counted], labels=range(6))
    np.testing.assert_array_equal(matrices.sum(axis=0), want)
    iou = scoring.class_iou(matrices.sum(axis=0))
    scores = jaccard_score(labels[counted], predicted[counted], labels=range(5), average=None)
    np.testing.assert_allclose(iou[:5], scores)
    assert np.isnan(iou[5])  # class 5 is nowhere
    crops = scoring.measure(matrices)
    np.testing.assert_allclose(crops["miou"]["value"], scores.mean())
    accuracy = np.mean(labels[counted] == predicted[counted])
    np.testing.assert_allclose(crops["pixel_accuracy"]["value"], accuracy)
    for metric in crops.values():
        low, high = metric["interval"]
        assert low < metric["value"] < high < low + 0.1
    share = np.mean(labels[counted] == (best := np.bincount(labels[counted]).argmax()))
    miou, majority = scoring.majority(matrices)
    assert majority == best
    np.testing.assert_allclose(miou, share / 5)


@pytest.mark.skipif(not CAMVID.exists(), reason="needs the CamVid subset beside the project")
def test_camvid_is_read():
    sizes = {"train": 41, "val": 6, "test": 10}
    for split, count in sizes.items():
        pairs = sources.open_pairs(f"camvid:{CAMVID}:{split}")
        assert pairs.num_examples == count
        assert (examination.check(pairs, split) == [360, 480]).all()
    label = np.asarray(Image.open(CAMVID / "testannot" / "0001TP_008550.png"))
    index = [p.endswith("0001TP_008550.png") for p in pairs.labels].index(True)
    got = pairs.label(tf.constant(index, tf.int64)).numpy()
    np.testing.assert_array_equal(got, np.where(label == 11, 255, label))
