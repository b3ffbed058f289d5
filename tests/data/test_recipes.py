"""Recipes against PIL with the same parameters, and their draws against torchvision's laws."""

import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from crop_box import crop_box
from PIL import Image
from pil_views import pil_view, synthetic_photo
from scipy import stats

from moco_tf import addresses
from moco_tf.data import recipes
from moco_tf.data.image_ops import random_crop_box, to_planes
from moco_tf.data.recipes import moco
from moco_tf.data.recipes.recipe import ColorJitter, GaussianBlur, Grayscale

SHARED = Path(__file__).resolve().parents[3] / "shared"
PHOTOS = sorted(SHARED.glob("data/imagenet_sample/*.JPEG"))
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
GRAY, BLUR = ("gray", 0.2), ("blur", 0.5, 0.1, 2.0)  # op, probability, parameters
JITTER = ("jitter", 0.8, 0.4, 0.4, 0.4, 0.1)
PAPER = {  # smallest area, mean and standard deviation, ops in order
    "v1": (0.2, IMAGENET, GRAY, ("jitter", 1.0, 0.4, 0.4, 0.4, 0.4)),
    "v2": (0.2, IMAGENET, JITTER, GRAY, BLUR),
    "cifar10": (0.08, CIFAR, JITTER, GRAY),
}
each_recipe = pytest.mark.parametrize("name", PAPER)


def small_batch(n=12, size=32):
    return np.stack([np.asarray(synthetic_photo(i, size, size)) for i in range(n)])


@each_recipe
@pytest.mark.parametrize("kind", ["photos", "synthetic"])
def test_views_agree_with_pil(name, kind):
    if kind == "photos" and not PHOTOS:
        pytest.skip("no ../shared/data/imagenet_sample beside the project")
    images = [synthetic_photo(seed) for seed in range(8)]
    if kind == "photos":
        photos = [Image.open(path).convert("RGB") for path in PHOTOS[3::8]]
        images = [photo for photo in photos if max(photo.size) <= 640]
    recipe, size, errors = getattr(moco, name), 32 if name == "cifar10" else 224, []
    mean, std = PAPER[name][1]
    for slot, image in enumerate(images):
        for view in (0, 1):
            u = recipe.draw(0, slot, view)
            x = recipe.geometry(tf.constant(np.asarray(image)), u, size)
            x = recipe.photometric(x[None], u[None])[0] * std + mean
            want = pil_view(PAPER[name], image, u.numpy().astype(float), size)
            errors.append(255 * np.abs(x - want).mean())
    assert np.mean(errors) < 2
    assert np.max(errors) < 4  # PIL keeps bytes between ops, and its hue is one


@each_recipe
def test_ops_and_their_order_are_the_papers(name):
    classes = {"jitter": ColorJitter, "gray": Grayscale, "blur": GaussianBlur}
    smallest, (mean, std), *ops = PAPER[name]
    recipe = getattr(moco, name)
    assert [type(op) for op in recipe.photometric_ops] == [classes[op] for op, *_ in ops]
    assert [op.p for op in recipe.photometric_ops] == [p for _, p, *_ in ops]
    assert (recipe.crop.scale, recipe.crop.ratio) == ((smallest, 1.0), (3 / 4, 4 / 3))
    assert (recipe.mean, recipe.std) == (mean, std)


# --- geometry ------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0)])
def test_random_crop_box_is_torchvisions(scale):
    rng, n = np.random.default_rng(0), 3000
    u = rng.random((n, 22), dtype=np.float32)
    u[::7], u[1::7] = 0.0, 1 - 2.0**-23  # the smallest and the largest numbers that are drawn
    sizes = np.exp(rng.uniform(0, math.log(4000), (n, 2))).astype(np.int32)  # many too long
    boxes = tf.data.Dataset.from_tensor_slices((u, sizes)).map(
        lambda u, size: tf.stack(random_crop_box(u, size[0], size[1], scale, (3 / 4, 4 / 3)))
    )
    got = next(iter(boxes.batch(n))).numpy()
    want = [
        crop_box(a, *size, scale) for a, size in zip(u.astype(float), sizes.tolist(), strict=True)
    ]
    # A side may round otherwise in float64, once in ten thousand.
    assert (got != np.array(want)).any(axis=1).sum() <= 2
    assert (got[:, :2] >= 0).all() and (got[:, 2:] > 0).all()
    assert (got[:, :2] + got[:, 2:] <= sizes).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 5)])
def test_tiny_images_make_views(size):
    recipe = moco.v2
    u = recipe.draw(0, 0, 0)
    x = recipe.geometry(tf.fill([*size, 3], tf.constant(200, tf.uint8)), u, 16)
    np.testing.assert_array_equal(x, np.full((16, 16, 3), 200))
    assert np.isfinite(recipe.photometric(x[None], u[None])).all()


@pytest.mark.parametrize("name", ["v2", "cifar10"])
def test_crops_and_flips_are_distributed_as_torchvisions(name):
    recipe, n, (height, width) = getattr(moco, name), 1500, (200, 250)
    rows, columns = np.mgrid[:height, :width]
    image = tf.constant(np.stack([rows, columns, rows], -1), tf.uint8)  # pixels tell their place
    views = tf.data.Dataset.range(n).map(lambda i: recipe.geometry(image, recipe.draw(3, i, 1), 32))
    views = next(iter(views.batch(n))).numpy().astype(float)
    tops, lefts = views[:, :, 16, 0], views[:, 16, :, 1]  # n x 32 each
    assert abs((lefts[:, 0] > lefts[:, -1]).mean() - 0.5) < 4 * math.sqrt(0.25 / n)

    def extent(x):  # without the edges, where the resize sees one side only
        return np.abs(x[:, 28] - x[:, 3]) * 32 / 25, x.mean(axis=1)

    (h, y), (w, x) = extent(tops), extent(lefts)
    uniform = np.random.default_rng(0).random((n, 22))
    boxes = [crop_box(u, height, width, (PAPER[name][0], 1.0)) for u in uniform]
    top, left, box_h, box_w = np.array(boxes).T
    for got, want in (
        (h * w, box_h * box_w),
        (w / h, box_w / box_h),
        (y, top + (box_h - 1) / 2),
        (x, left + (box_w - 1) / 2),
    ):
        assert stats.ks_2samp(got, want).pvalue > 0.01


# --- draws ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draws():
    """n x view x num_draws, of moco:v2."""
    both = tf.data.Dataset.range(2001).map(lambda i: [moco.v2.draw(5, i, view) for view in (0, 1)])
    return next(iter(both.map(lambda *u: tf.stack(u)).batch(2001))).numpy()


def test_draws_are_uniform_and_independent(draws):
    assert draws.min() >= 0 and draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 0.01
    neighbours = np.concatenate([draws[:-1, 0], draws[:-1, 1], draws[1:, 0]], axis=1)
    correlation = np.corrcoef(neighbours.T) - np.eye(neighbours.shape[1])
    assert np.abs(correlation).max() < 5 / math.sqrt(len(neighbours))


def test_draws_depend_on_seed_index_and_view_alone():
    slots = [(7, 11, 0), (8, 11, 0), (-7, 11, 0), (7 + 2**32, 11, 0), (7, 11, 1), (7, 12, 0)]
    slots += [(7, 10, 1), (11, 7, 0), (7, 11 + 2**32, 0), (7, 2**40, 0), (0, 0, 0), (0, 0, 1)]
    eager = np.stack([moco.v2.draw(*slot) for slot in slots])
    assert len(np.unique(eager)) == eager.size  # nothing occurs twice
    for slot, want in zip(slots, eager, strict=True):
        seed, index, view = slot
        in_data = tf.data.Dataset.from_tensors(np.int64(index))
        compiled = tf.function(lambda i, seed=seed, view=view: moco.v2.draw(seed, i, view))
        for got in (moco.v2.draw(*slot), *in_data.map(compiled), compiled(np.int64(index))):
            np.testing.assert_array_equal(got, want)


def test_ops_are_applied_at_their_rates(draws):
    u, x = draws[:, 0], to_planes(small_batch(1, 8))
    x, start = tf.repeat(x, len(u), axis=0), 23
    for op, (_, p, *_) in zip(moco.v2.photometric_ops, PAPER["v2"][2:], strict=True):
        result = op(x, u[:, start : start + op.num_draws])
        rate = (np.abs(result - x).max(axis=(1, 2, 3)) > 0).mean()
        # A sigma under .17 px, which is one blur in 27, changes nothing.
        assert abs(rate - p) < 4 * math.sqrt(p * (1 - p) / len(u))
        start += op.num_draws


# --- places --------------------------------------------------------------------------------


def one_by_one(photometric, images, u):
    return np.concatenate([photometric(images[i : i + 1], u[i : i + 1]) for i in range(len(u))])


def on_host(photometric, images, u):
    data = tf.data.Dataset.from_tensor_slices((images, u))
    return np.stack(list(data.map(lambda x, u: photometric(x[None], u[None])[0])))


def in_function(photometric, images, u):
    specs = tf.TensorSpec([None, 32, 32, 3], tf.uint8), tf.TensorSpec([None, u.shape[1]])
    return tf.function(photometric, input_signature=specs)(images, u)


def in_xla(photometric, images, u):
    return tf.function(photometric, jit_compile=True)(images, u)


PLACES = [(name, place) for name in PAPER for place in (one_by_one, on_host, in_function)]


@pytest.mark.parametrize(("name", "place"), [*PLACES, ("v2", in_xla)])
def test_pixels_are_the_same_everywhere(name, place):
    recipe, images = getattr(moco, name), tf.constant(small_batch())
    u = tf.stack([recipe.draw(1, i, 0) for i in range(len(images))])
    batched = recipe.photometric(images, u)
    assert batched.dtype == tf.float32
    np.testing.assert_allclose(place(recipe.photometric, images, u), batched, rtol=0, atol=1e-5)


@each_recipe
def test_geometry_is_the_same_in_tf_data(name):
    recipe, image = getattr(moco, name), tf.constant(np.asarray(synthetic_photo(0)))
    data = tf.data.Dataset.range(6).map(lambda i: recipe.geometry(image, recipe.draw(0, i, 0), 24))
    for i, view in enumerate(data):
        np.testing.assert_array_equal(view, recipe.geometry(image, recipe.draw(0, i, 0), 24))


# --- addresses -----------------------------------------------------------------------------


def test_addresses_name_the_recipes():
    assert [f"moco:{name}" for name in PAPER] == list(moco.ADDRESSES)
    for name in PAPER:
        assert addresses.resolve(recipes, f"moco:{name}", "recipe") is getattr(moco, name)


@pytest.mark.parametrize("address", ["moco:v3", "moco:", "simclr:v1", "v2", "", "moco:IMAGENET"])
def test_unknown_address_lists_the_recipes(address):
    with pytest.raises(ValueError, match="must be one of moco:v1, moco:v2, moco:cifar10"):
        addresses.resolve(recipes, address, "recipe")
