"""`two_views`: the pipeline of a run for `model.fit`, from arrays, addresses and datasets."""

import numpy as np
import pytest
import tensorflow as tf
from keras_case import encoder
from PIL import Image

from moco_tf import SGD, MemoryBank, MoCo, two_views
from moco_tf.data import pairs, sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.recipes import moco
from moco_tf.data.recipes.recipe import IMAGENET, RandomResizedCrop, Recipe
from moco_tf.data.sources import synthetic
from moco_tf.data.two_views import two_view_dataset

IMAGES, _ = synthetic.shapes(40, seed=0)
CROPS = Recipe(RandomResizedCrop((0.2, 1.0)), (), **IMAGENET)  # traced faster than colors
SIZES = {"batch_size": 16, "image_size_px": 12, "jit_compile": False}


def arrays(data):
    return [[x.numpy() for x in batch] for batch in data]


def assert_equal(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want):
        np.testing.assert_array_equal(a, b)


def test_views_and_order_are_those_of_a_run():
    data = two_views(IMAGES, CROPS, seed=3, **SIZES)
    assert len(data) == 2
    drawn = tf.data.Dataset.random(3, rerandomize_each_iteration=True).take(1)
    # Each iteration is another epoch of the run with this seed.
    first_epoch, epoch = (int(number) for _ in range(2) for number in drawn)
    first = arrays(data)
    run = two_view_dataset(
        sources.from_arrays(IMAGES),
        CROPS,
        BatchLayout(16),
        image_size_px=12,
        seed=3,
        start_step=epoch % pairs.EPOCHS * 2,
        jit_compile=False,
    )
    want = [(batch["x_q"].numpy(), batch["x_k"].numpy()) for batch in run.take(2)]
    assert_equal(arrays(data), want)
    assert first_epoch != epoch and (first[0][0] != want[0][0]).any()


def test_each_epoch_has_each_image_once_and_trains_a_memory_bank():
    data = two_views(IMAGES, CROPS, with_index=True, **SIZES | {"batch_size": 20})
    first, second = (np.concatenate([batch["index"] for batch in data]) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(40))
    assert list(first) != list(second)
    bank = MemoryBank(encoder(side_px=12), num_images=40, queue_size=8)
    bank.compile(SGD(0.1))
    assert np.isfinite(bank.fit(data, verbose=0).history["loss"]).all()


FORMS = {
    "uint8": lambda data: data,
    "with labels": lambda data: data.map(lambda x: (x, 1)),
    "as TFDS": lambda data: data.map(lambda x: {"image": x, "label": 1}),
    "encoded": lambda data: data.map(tf.io.encode_png),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_of_a_dataset_are_read(form):
    source = pairs._open(FORMS[form](tf.data.Dataset.from_tensor_slices(IMAGES)))
    images = [source.image(key).numpy() for key in source.epoch(0, 0, 0)]
    np.testing.assert_array_equal(images, IMAGES)


def test_images_of_a_dataset_have_any_size_and_its_order():
    def images():
        for i in range(20):
            yield np.full((10 + i, 30 - i, 3), 10 * i, np.uint8)

    signature = tf.TensorSpec([None, None, 3], tf.uint8)
    data = tf.data.Dataset.from_generator(images, output_signature=signature)
    data = data.apply(tf.data.experimental.assert_cardinality(20))
    data = two_views(data, "moco:v1", **SIZES)
    ((x_q, x_k),) = data
    drawn = tf.data.Dataset.random(0, rerandomize_each_iteration=True).take(1)
    slot = int(next(iter(drawn))) % pairs.EPOCHS * 16
    for view, x in enumerate((x_q, x_k)):
        image = tf.fill([15, 25, 3], tf.constant(50, tf.uint8))
        u = moco.v1.draw(0, tf.constant(slot + 5, tf.int64), view)
        want = moco.v1.photometric(moco.v1.geometry(image, u, 12)[None], u[None])[0]
        np.testing.assert_allclose(x[5], want, atol=1e-5)


@pytest.mark.parametrize(
    "change, message",
    (
        (lambda data: data.map(lambda x: tf.cast(x, tf.float32)), "pixels of 0 to 255"),
        (lambda data: data.batch(4), r"Leave `\.batch` out"),
        (lambda data: data.repeat(), r"endless one. Leave `\.repeat\(\)` out"),
        (lambda data: data.filter(lambda x: True), "unknown length"),
        (lambda data: data.map(lambda x: {"pixels": x}), "must yield single images"),
        (lambda data: data.take(10), "at least one global batch"),
    ),
)
def test_datasets_of_something_else_are_refused(change, message):
    data = tf.data.Dataset.from_tensor_slices(IMAGES)
    with pytest.raises(ValueError, match=f"(?s)Received: .*{message}|{message}.*Received: "):
        two_views(change(data), **SIZES)


def test_other_arrays_are_refused():
    with pytest.raises(ValueError, match="uint8 array NxHxWx3"):
        two_views(IMAGES / 255, **SIZES)


def test_a_folder_trains_a_model_in_two_lines(tmp_path):
    for i, image in enumerate(IMAGES[:9]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    model = MoCo(encoder(side_px=12), queue_size=16)
    model.compile(SGD(0.1))
    views = two_views(f"folder:{tmp_path}", recipe=CROPS, **SIZES | {"batch_size": 4})
    history = model.fit(views, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert int(model.optimizer.iterations) == 4
