"""Each image op against PIL (torchvision's definitions over it) and float oracles in NumPy."""

import colorsys
import itertools

import numpy as np
import pytest
import tensorflow as tf
from pictures import random_image, read_photos
from PIL import Image, ImageEnhance, ImageFilter
from scipy import ndimage

from moco_tf.data import image_ops as ops

OPS = ("brightness", "contrast", "saturation", "hue", "grayscale", "blur")
LUMA = np.array([0.299, 0.587, 0.114])


@pytest.fixture(scope="module", params=["photos", "synthetic"])
def pictures(request):
    """Eight RGB PIL images of one size."""
    if request.param == "photos":
        return read_photos(8, 180, 200)
    return [Image.fromarray(random_image(seed)) for seed in range(8)]


def on_planes(op):
    """An op on planes as one on images NxHxWx3."""

    def apply(x, *parameters):
        return ops.from_planes(op(tf.transpose(x, [0, 3, 1, 2]), *parameters))

    return apply


def to_float(images):
    return np.stack([np.asarray(image, np.float32) / 255 for image in images])


def random_batch(n):
    return np.random.default_rng(0).random((n, 12, 15, 3), dtype=np.float32)


# --- oracles -------------------------------------------------------------------------------


def pil_hue(image, shift):
    """torchvision's adjust_hue of a PIL image."""
    h, s, v = image.convert("HSV").split()
    turned = np.asarray(h) + np.int32(shift * 255).astype(np.uint8)  # wraps round
    return Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")


def float_hue(x, shift):
    hsv = [colorsys.rgb_to_hsv(*rgb) for rgb in x.reshape(-1, 3).tolist()]
    turned = [colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in hsv]
    return np.reshape(turned, x.shape)


def float_blend(x, other, factor):
    return np.clip(factor * x + (1 - factor) * other, 0, 1)


TF_OPS = {
    "brightness": on_planes(ops.brightness),
    "contrast": on_planes(ops.contrast),
    "saturation": on_planes(ops.saturation),
    "hue": on_planes(ops.hue),
    "grayscale": on_planes(lambda x, _: ops.grayscale(x)),
    "blur": on_planes(lambda x, sigma: ops.gaussian_blur(x, sigma, radius=6)),
}
color_jitter = on_planes(ops.color_jitter)
PIL_OPS = {
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "saturation": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "hue": pil_hue,
    "grayscale": lambda image, _: image.convert("L").convert("RGB"),
    "blur": lambda image, sigma: image.filter(ImageFilter.GaussianBlur(sigma)),
}
FLOAT_OPS = {
    "brightness": lambda x, factor: np.clip(x * factor, 0, 1),
    "contrast": lambda x, factor: float_blend(x, (x @ LUMA).mean(), factor),
    "saturation": lambda x, factor: float_blend(x, (x @ LUMA)[..., None], factor),
    "hue": float_hue,
    "grayscale": lambda x, _: np.repeat((x @ LUMA)[..., None], 3, axis=-1),
    "blur": lambda x, s: ndimage.gaussian_filter(x, s, mode="nearest", radius=6, axes=(0, 1)),
}
PARAMETERS = {  # of eight images
    **dict.fromkeys(OPS[:3], (0.0, 0.6, 0.8, 0.95, 1.0, 1.2, 1.3, 1.4)),
    "hue": (-0.5, -0.4, -0.1, -0.03, 0.0, 0.07, 0.25, 0.4),
    "grayscale": (0.0,) * 8,
    "blur": (0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 1.7, 2.0),
}
each_op = pytest.mark.parametrize("name", OPS)


# --- color and blur -----------------------------------------------------------------------


@each_op
def test_op_agrees_with_pil(name, pictures):
    parameters = PARAMETERS[name]
    want = [PIL_OPS[name](picture, p) for picture, p in zip(pictures, parameters, strict=True)]
    if name == "hue":  # PIL's hue is a byte: the shift that it really makes
        parameters = [int(255 * p) / 256 for p in parameters]
    got = TF_OPS[name](tf.constant(to_float(pictures)), tf.constant(parameters))
    errors = 255 * np.abs(got - to_float(want)).mean((1, 2, 3))
    assert errors.mean() < 1
    # PIL's blur is three box blurs, which differ most at a sigma of a third of a pixel.
    assert errors.max() < (2 if name == "blur" else 1)


@each_op
def test_op_agrees_with_its_definition_in_float(name):
    x = random_batch(8)
    got = TF_OPS[name](tf.constant(x), tf.constant(PARAMETERS[name]))
    want = [FLOAT_OPS[name](a, p) for a, p in zip(x.astype(float), PARAMETERS[name], strict=True)]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", OPS[:4])
def test_neutral_parameter_is_the_identity(name):
    x, neutral = tf.constant(random_batch(8)), tf.fill([8], 0.0 if name == "hue" else 1.0)
    np.testing.assert_allclose(TF_OPS[name](x, neutral), x, rtol=0, atol=1e-6)


@each_op
def test_extreme_pixels_stay_finite_and_in_range(name):
    grays = [[v] * 3 for v in (0.0, 1.0, 0.5, 1e-39)]
    others = [(1e-39, 0, 0), (0, 1e-39, 5e-39), (1, 1e-39, 0), (0.5, 0.5 + 6e-8, 0.5)]
    pixels = tf.constant(grays + others, tf.float32)
    for x in (pixels[:, None, None], pixels[None, None]):  # eight plain images, or all mixed
        x = tf.broadcast_to(x, [8, 2, 8, 3])
        for parameters in (PARAMETERS[name], PARAMETERS[name][::-1]):
            result = TF_OPS[name](x, tf.constant(parameters)).numpy()
            assert np.isfinite(result).all()
            assert result.min() >= -1e-6 and result.max() <= 1 + 1e-6


@each_op
def test_op_is_the_same_in_tf_data(name):
    x, parameters = random_batch(8), np.array(PARAMETERS[name], np.float32)
    data = tf.data.Dataset.from_tensor_slices((x, parameters)).batch(1, drop_remainder=True)
    got = np.concatenate(list(data.map(TF_OPS[name])))
    want = TF_OPS[name](tf.constant(x), tf.constant(parameters))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)


def test_normalize_is_per_channel():
    x, mean, std = random_batch(4), (0.1, 0.2, 0.3), (0.5, 2.0, 4.0)
    want = np.stack([(x[..., c] - mean[c]) / std[c] for c in range(3)], -1)
    np.testing.assert_allclose(ops.normalize(x, mean, std), want, atol=1e-6)


# --- color jitter: all 24 orders ----------------------------------------------------------

ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)


@pytest.fixture(scope="module")
def jitter():
    """Images, factors and the jittered images of one batch."""
    rng, x = np.random.default_rng(1), random_batch(24)
    factors = rng.uniform((0.6, 0.6, 0.6, -0.4), (1.4, 1.4, 1.4, 0.4), (24, 4)).astype(np.float32)
    return x, factors, color_jitter(tf.constant(x), factors, ORDERS)


def test_color_jitter_respects_the_order_of_each_image(jitter):
    x, factors, got = jitter
    for image, row, order, result in zip(
        x.astype(float), factors.tolist(), ORDERS, got, strict=True
    ):
        for op in order:
            image = FLOAT_OPS[OPS[op]](image, row[op])
        np.testing.assert_allclose(result, image, rtol=0, atol=1e-5)


def test_color_jitter_of_one_image_equals_its_row_of_the_batch(jitter):
    x, factors, want = jitter
    single = tf.data.Dataset.from_tensor_slices((x, factors, ORDERS)).batch(1, drop_remainder=True)
    got = np.concatenate(list(single.map(color_jitter)))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    eager = color_jitter(*(tf.constant(a[7:8]) for a in (x, factors, ORDERS)))
    np.testing.assert_allclose(eager, want[7:8], rtol=0, atol=1e-6)


# --- geometry ------------------------------------------------------------------------------


def test_crop_and_resize_agrees_with_pil(pictures):
    width, height = pictures[0].size
    for i, picture in enumerate(pictures):
        top, left, h, w = box = (i, 2 * i, height - 8 * i, (width - 14) // (1 + i % 3))
        size = (20, 32, 64, 224)[i % 4]
        got = ops.crop_and_resize(tf.constant(np.asarray(picture)), box, size)
        crop = picture.crop((left, top, left + w, top + h))
        want = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR), int)
        assert got.dtype == tf.uint8
        difference = np.abs(got.numpy() - want)
        assert difference.max() <= 1 and difference.mean() < 0.5


@pytest.mark.parametrize(
    ("height", "width", "resize", "size"),
    [
        (61, 97, 32, 27),
        (97, 61, 32, 32),
        (40, 40, 17, 12),
        (33, 64, 33, 28),
        (9, 50, 20, 15),
        (1, 1, 32, 28),
        (1, 300, 20, 16),
        (150, 211, 256, 224),
    ],
)
def test_resize_and_center_crop_are_torchvisions(height, width, resize, size):
    image, short = Image.fromarray(random_image(0, height, width)), min(height, width)
    w, h = (int(resize * length / short) for length in (width, height))
    top, left = (round((length - size) / 2.0) for length in (h, w))
    want = image.resize((w, h), Image.Resampling.BILINEAR)
    want = np.asarray(want.crop((left, top, left + size, top + size)), int)
    got = ops.resize_and_center_crop(tf.constant(np.asarray(image)), resize, size)
    assert np.abs(got.numpy() - want).max() <= 1


def test_of_a_thin_image_only_the_crop_is_computed():
    """Resized as a whole it would have 50 GB."""
    thin = tf.tile(tf.constant([[[10, 20, 30]]], tf.uint8), [65_000, 1, 1])
    got = ops.resize_and_center_crop(thin, 256, 224)
    assert (got.numpy() == [10, 20, 30]).all()


@pytest.mark.parametrize("size", [(40, 50), (100, 31), (72, 96), (1, 200)])
def test_resize_is_tensorflows_own_to_the_bit(size):
    image = tf.constant(random_image(0, *size))
    want = tf.image.resize(image, [64, 64], antialias=True)
    got = ops.crop_and_resize(image, (0, 0, *size), 64)
    np.testing.assert_array_equal(got, np.floor(want.numpy() + np.float32(0.5)))


@pytest.mark.parametrize("op", ["crop_and_resize", "resize_and_center_crop"])
def test_geometry_is_the_same_in_tf_data(op):
    arguments = ((3, 7, 40, 31), 24) if op == "crop_and_resize" else (41, 32)
    image = random_image(0)
    data = tf.data.Dataset.from_tensors(image).map(lambda x: getattr(ops, op)(x, *arguments))
    want = getattr(ops, op)(tf.constant(image), *arguments)
    np.testing.assert_array_equal(next(iter(data)), want)
