"""Each image op against PIL (torchvision's definitions over it) and float oracles in NumPy."""

import colorsys
import io
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage

from moco_tf import image_ops as ops

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "imagenet_sample"
PHOTOS = sorted(SAMPLE.glob("*.JPEG"))
NO_PHOTOS = "no ../shared/data/imagenet_sample beside the project"
LUMA = np.array([0.299, 0.587, 0.114])


def random_image(seed, height=72, width=96, channels=3):
    """Smooth uint8 noise of full contrast."""
    noise = np.random.default_rng(seed).normal(size=(height, width, channels))
    smooth = ndimage.gaussian_filter(noise, (2.0, 2.0, 0.0))
    return np.clip(smooth / smooth.std() * 60 + 128, 0, 255).astype(np.uint8)


def read_photos(count, height, width):
    """The centres of photos of different sizes, at their own resolution."""
    if not PHOTOS:
        pytest.skip(NO_PHOTOS)
    photos = [Image.open(p).convert("RGB") for p in PHOTOS]
    photos = [p for p in photos if p.width >= width and p.height >= height]
    picked = photos[:: len(photos) // count][:count]
    boxes = [((p.width - width) // 2, (p.height - height) // 2) for p in picked]
    return [p.crop((x, y, x + width, y + height)) for p, (x, y) in zip(picked, boxes)]


@pytest.fixture(scope="module", params=["photos", "synthetic"])
def pictures(request):
    """Eight RGB PIL images of one size."""
    if request.param == "photos":
        return read_photos(8, 180, 200)
    return [Image.fromarray(random_image(seed)) for seed in range(8)]


def to_float(images):
    return np.stack([np.asarray(image, np.float32) / 255 for image in images])


def random_batch(n=6, height=12, width=15, seed=0):
    return np.random.default_rng(seed).random((n, height, width, 3), dtype=np.float32)


# --- oracles -------------------------------------------------------------------------------


def pil_hue(image, shift):
    """torchvision's adjust_hue of a PIL image."""
    h, s, v = image.convert("HSV").split()
    turned = np.asarray(h) + np.int32(shift * 255).astype(np.uint8)  # wraps round
    return Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")


def numpy_hue(x, shift):
    """torchvision's adjust_hue of a float tensor."""
    x = x.astype(np.float64)
    r, g, b = np.moveaxis(x, -1, 0)
    v, low = x.max(-1), x.min(-1)
    s = (v - low) / np.where(v == low, 1, v)
    rc, gc, bc = np.moveaxis((v[..., None] - x) / np.where(v == low, 1, v - low)[..., None], -1, 0)
    h = np.select([v == r, v == g], [bc - gc, 2 + rc - bc], 4 + gc - rc) / 6
    h = (h + shift) % 1 * 6
    i, f = np.floor(h).astype(int) % 6, h - np.floor(h)
    p, q, t = v * (1 - s), v * (1 - s * f), v * (1 - s * (1 - f))
    table = ((v, q, p, p, t, v), (t, v, v, q, p, p), (p, p, t, v, v, q))
    return np.stack([np.choose(i, row) for row in table], -1)


def numpy_blend(x, other, factor):
    return np.clip(factor * x + (1 - factor) * other, 0, 1)


def numpy_blur(x, sigma):
    for axis in (0, 1):
        x = ndimage.gaussian_filter1d(x, sigma, axis=axis, mode="nearest", radius=6)
    return x


FACTORS = (0.0, 0.6, 0.8, 0.95, 1.0, 1.2, 1.3, 1.4)
# name: op, PIL's, NumPy's, parameters of eight images, the parameter of the identity.
OPS = {
    "brightness": (
        ops.brightness,
        lambda im, f: ImageEnhance.Brightness(im).enhance(f),
        lambda x, f: np.clip(x * f, 0, 1),
        FACTORS,
        1.0,
    ),
    "contrast": (
        ops.contrast,
        lambda im, f: ImageEnhance.Contrast(im).enhance(f),
        lambda x, f: numpy_blend(x, (x @ LUMA).mean(), f),
        FACTORS,
        1.0,
    ),
    "saturation": (
        ops.saturation,
        lambda im, f: ImageEnhance.Color(im).enhance(f),
        lambda x, f: numpy_blend(x, (x @ LUMA)[..., None], f),
        FACTORS,
        1.0,
    ),
    "hue": (ops.hue, pil_hue, numpy_hue, (-0.5, -0.4, -0.1, -0.03, 0.0, 0.07, 0.25, 0.4), 0.0),
    "grayscale": (
        lambda x, _: ops.grayscale(x),
        lambda im, _: im.convert("L").convert("RGB"),
        lambda x, _: np.repeat((x @ LUMA)[..., None], 3, -1),
        (0.0,) * 8,
        None,
    ),
    "blur": (
        ops.gaussian_blur,
        lambda im, sigma: im.filter(ImageFilter.GaussianBlur(sigma)),
        numpy_blur,
        (0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 1.7, 2.0),
        0.1,
    ),
}
each_op = pytest.mark.parametrize("name", OPS)


# --- colour and blur -----------------------------------------------------------------------


@each_op
def test_op_agrees_with_pil(name, pictures):
    op, pil_op, _, parameters, _ = OPS[name]
    got = op(tf.constant(to_float(pictures)), tf.constant(parameters))
    want = to_float([pil_op(im, p) for im, p in zip(pictures, parameters)])
    errors = 255 * np.abs(got - want).mean((1, 2, 3))
    assert errors.mean() < 1
    # PIL's blur is three box blurs, which differ most at a sigma of a third of a pixel.
    assert errors.max() < (2 if name == "blur" else 1)


@each_op
def test_op_agrees_with_numpy(name):
    op, _, numpy_op, parameters, _ = OPS[name]
    x = random_batch(8)
    got = op(tf.constant(x), tf.constant(parameters))
    want = [numpy_op(image.astype(np.float64), p) for image, p in zip(x, parameters)]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


def test_hue_agrees_with_colorsys():
    pixels, shifts = random_batch(1, 15, 20), (-0.31, 0.5)
    for shift in shifts:
        got = ops.hue(tf.constant(pixels), tf.constant([shift]))
        hsv = [colorsys.rgb_to_hsv(*map(float, rgb)) for rgb in pixels.reshape(-1, 3)]
        want = [colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in hsv]
        np.testing.assert_allclose(tf.reshape(got, [-1, 3]), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in OPS if name != "grayscale"])
def test_neutral_parameter_is_the_identity(name):
    x = tf.constant(random_batch())
    np.testing.assert_allclose(OPS[name][0](x, tf.fill([6], OPS[name][4])), x, rtol=0, atol=1e-6)


@each_op
def test_extreme_pixels_stay_finite_and_in_range(name):
    black_white_gray = [[v] * 3 for v in (0.0, 1.0, 0.5, 1e-39, 1.2e-38)]
    edges = [(1e-39, 0, 0), (0, 1e-39, 5e-39), (1, 1e-39, 0), (0.5, 0.5 + 6e-8, 0.5), (1, 0, 1)]
    x = tf.tile(tf.constant([[black_white_gray + edges]], tf.float32), [8, 2, 1, 1])
    result = OPS[name][0](x, tf.constant(OPS[name][3])).numpy()
    assert np.isfinite(result).all()
    assert result.min() >= -1e-6 and result.max() <= 1 + 1e-6


def test_gray_pixels_keep_their_hue():
    x = tf.repeat(tf.random.stateless_uniform([1, 8, 8, 1], (0, 1)), 3, axis=-1)
    np.testing.assert_array_equal(ops.hue(x, tf.constant([0.3])), x)


def test_normalize_is_per_channel():
    x, mean, std = random_batch(), (0.1, 0.2, 0.3), (0.5, 2.0, 4.0)
    want = np.stack([(x[..., c] - mean[c]) / std[c] for c in range(3)], -1)
    np.testing.assert_allclose(ops.normalize(x, mean, std), want, atol=1e-6)


# --- colour jitter -------------------------------------------------------------------------

ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)
JITTER = ("brightness", "contrast", "saturation", "hue")


def jitter_inputs():
    factors = np.random.default_rng(1).uniform((0.6, 0.6, 0.6, -0.4), (1.4, 1.4, 1.4, 0.4), (24, 4))
    return random_batch(24), factors.astype(np.float32)


def test_color_jitter_respects_the_order_of_each_image():
    x, factors = jitter_inputs()
    want = x.astype(np.float64)
    for i, order in enumerate(ORDERS):
        for op in order:
            want[i] = OPS[JITTER[op]][2](want[i], float(factors[i, op]))
    np.testing.assert_allclose(ops.color_jitter(x, factors, ORDERS), want, rtol=0, atol=1e-5)


def test_color_jitter_of_one_image_equals_its_row_of_the_batch():
    x, factors = jitter_inputs()
    one_by_one = tf.data.Dataset.from_tensor_slices((x, factors, ORDERS)).batch(1, True)
    got = np.concatenate(list(one_by_one.map(ops.color_jitter)))
    np.testing.assert_allclose(got, ops.color_jitter(x, factors, ORDERS), rtol=0, atol=1e-6)
    eager = ops.color_jitter(tf.constant(x[:1]), factors[:1], ORDERS[:1])
    np.testing.assert_allclose(eager, got[:1], rtol=0, atol=1e-6)


# --- geometry ------------------------------------------------------------------------------


def numpy_crop_box(u, height, width, scale, ratio):
    """torchvision's RandomResizedCrop.get_params, reading its randomness from u."""
    for area_draw, ratio_draw in zip(u[:10], u[10:20]):
        area = height * width * (scale[0] + area_draw * (scale[1] - scale[0]))
        aspect = ratio[0] * (ratio[1] / ratio[0]) ** ratio_draw
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(u[20] * (height - h + 1)), int(u[21] * (width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.08, 1.0)])
def test_random_crop_box_is_torchvisions(scale):
    rng, n, ratio = np.random.default_rng(0), 3000, (3 / 4, 4 / 3)
    u = rng.random((n, 22), dtype=np.float32)
    u[::7], u[1::7] = 0.0, 1 - 2.0**-23  # the smallest and the largest numbers that are drawn
    sizes = np.exp(rng.uniform(0, math.log(4000), (n, 2))).astype(np.int32)  # aspects to 4000
    boxes = tf.data.Dataset.from_tensor_slices((u, sizes)).map(
        lambda u, size: tf.stack(ops.random_crop_box(u, size[0], size[1], scale, ratio))
    )
    got = next(iter(boxes.batch(n))).numpy()
    want = np.array(
        [numpy_crop_box(a, *b, scale, ratio) for a, b in zip(u.astype(float), sizes.tolist())]
    )
    # A box may round otherwise in float64, about once in ten thousand.
    assert (got != want).any(axis=1).sum() <= 2
    assert (got[:, :2] >= 0).all() and (got[:, 2:] > 0).all()
    assert (got[:, :2] + got[:, 2:] <= sizes).all()


def test_crop_and_resize_agrees_with_pil(pictures):
    width, height = pictures[0].size
    for i, picture in enumerate(pictures):
        top, left, h, w = box = (3 * i, 4 * i, height // (1 + i % 3) - 30, width - 40)
        for size in (32, 224):
            got = ops.crop_and_resize(tf.constant(np.asarray(picture)), box, size)
            crop = picture.crop((left, top, left + w, top + h))
            want = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), int)
            assert got.dtype == tf.uint8
            difference = np.abs(got.numpy() - want)
            assert difference.max() <= 1 and difference.mean() < 0.5


@pytest.mark.parametrize(
    ("height", "width", "size"), [(61, 97, 32), (97, 61, 32), (40, 40, 17), (33, 64, 33), (9, 50, 20)]
)
def test_resize_short_side_and_center_crop_are_torchvisions(height, width, size):
    image = Image.fromarray(random_image(0, height, width))
    short = min(height, width)
    resized = image.resize(
        (int(size * width / short), int(size * height / short)), Image.Resampling.BILINEAR
    )
    got = ops.resize_short_side(tf.constant(np.asarray(image)), size)
    want = np.asarray(resized, int)
    assert got.shape == want.shape
    assert np.abs(got.numpy() - want).max() <= 1

    side = size - 5
    top, left = (int(round((length - side) / 2.0)) for length in want.shape[:2])
    centre = ops.center_crop(got, side)
    np.testing.assert_array_equal(centre, got[top : top + side, left : left + side])


# --- eager, tf.data, XLA -------------------------------------------------------------------


@each_op
def test_op_is_the_same_in_tf_data(name):
    op, _, _, parameters, _ = OPS[name]
    x, parameters = random_batch(8), np.array(parameters, np.float32)
    data = tf.data.Dataset.from_tensor_slices((x, parameters)).batch(1, drop_remainder=True).map(op)
    eager = op(tf.constant(x), tf.constant(parameters))
    np.testing.assert_allclose(np.concatenate(list(data)), eager, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "op",
    [
        lambda image: ops.crop_and_resize(image, (3, 7, 40, 31), 24),
        lambda image: ops.resize_short_side(image, 20),
        lambda image: ops.center_crop(image, 41),
    ],
    ids=["crop_and_resize", "resize_short_side", "center_crop"],
)
def test_geometry_is_the_same_in_tf_data(op):
    image = random_image(0)
    unknown_shape = tf.TensorSpec([None, None, 3], tf.uint8)
    data = tf.data.Dataset.from_generator(lambda: [image], output_signature=unknown_shape).map(op)
    np.testing.assert_array_equal(next(iter(data)), op(tf.constant(image)))
