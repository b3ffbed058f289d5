"""Each image op against PIL (torchvision's definitions over it) and float oracles in NumPy."""

import colorsys
import io
import itertools
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
OPS = ("brightness", "contrast", "saturation", "hue", "grayscale", "blur")
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


def float_hue(x, shift):
    hsv = [colorsys.rgb_to_hsv(*rgb) for rgb in x.reshape(-1, 3).tolist()]
    turned = [colorsys.hsv_to_rgb((h + shift) % 1, s, v) for h, s, v in hsv]
    return np.reshape(turned, x.shape)


def float_blend(x, other, factor):
    return np.clip(factor * x + (1 - factor) * other, 0, 1)


def float_blur(x, sigma):
    for axis in (0, 1):
        x = ndimage.gaussian_filter1d(x, sigma, axis=axis, mode="nearest", radius=6)
    return x


TF_OPS = {
    "brightness": ops.brightness,
    "contrast": ops.contrast,
    "saturation": ops.saturation,
    "hue": ops.hue,
    "grayscale": lambda x, _: ops.grayscale(x),
    "blur": ops.gaussian_blur,
}
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
    "blur": float_blur,
}
FACTORS = (0.0, 0.6, 0.8, 0.95, 1.0, 1.2, 1.3, 1.4)
PARAMETERS = {  # of eight images
    **dict.fromkeys(OPS[:3], FACTORS),
    "hue": (-0.5, -0.4, -0.1, -0.03, 0.0, 0.07, 0.25, 0.4),
    "grayscale": (0.0,) * 8,
    "blur": (0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 1.7, 2.0),
}
each_op = pytest.mark.parametrize("name", OPS)


# --- colour and blur -----------------------------------------------------------------------


@each_op
def test_op_agrees_with_pil(name, pictures):
    got = TF_OPS[name](tf.constant(to_float(pictures)), tf.constant(PARAMETERS[name]))
    want = [PIL_OPS[name](picture, p) for picture, p in zip(pictures, PARAMETERS[name])]
    errors = 255 * np.abs(got - to_float(want)).mean((1, 2, 3))
    assert errors.mean() < 1
    # PIL's blur is three box blurs, which differ most at a sigma of a third of a pixel.
    assert errors.max() < (2 if name == "blur" else 1)


@each_op
def test_op_agrees_with_its_definition_in_float(name):
    x = random_batch(8)
    got = TF_OPS[name](tf.constant(x), tf.constant(PARAMETERS[name]))
    want = [FLOAT_OPS[name](a, p) for a, p in zip(x.astype(float), PARAMETERS[name])]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "neutral"),
    [("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.0), ("hue", 1.0)],
)
def test_neutral_parameter_is_the_identity(name, neutral):
    x = tf.constant(random_batch(8))
    np.testing.assert_allclose(TF_OPS[name](x, tf.fill([8], neutral)), x, rtol=0, atol=1e-6)


@each_op
def test_extreme_pixels_stay_finite_and_in_range(name):
    grays = [[v] * 3 for v in (0.0, 1.0, 0.5, 1e-39, 1.2e-38)]
    colours = [(1e-39, 0, 0), (0, 1e-39, 5e-39), (1, 1e-39, 0), (0.5, 0.5 + 6e-8, 0.5), (1, 0, 1)]
    for pixels in ([p] * 4 for p in (*grays, *colours)):  # also alone: its mean is as extreme
        row = tf.constant(pixels + grays + colours if pixels[0] is grays[0] else pixels, tf.float32)
        x = tf.tile(row[None, None], [8, 2, 1, 1])
        result = TF_OPS[name](x, tf.constant(PARAMETERS[name])).numpy()
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


# --- colour jitter: all 24 orders ----------------------------------------------------------

ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)


@pytest.fixture(scope="module")
def jitter():
    """Images, factors and the jittered images of one batch."""
    rng, x = np.random.default_rng(1), random_batch(24)
    factors = rng.uniform((0.6, 0.6, 0.6, -0.4), (1.4, 1.4, 1.4, 0.4), (24, 4)).astype(np.float32)
    return x, factors, ops.color_jitter(tf.constant(x), factors, ORDERS)


def test_color_jitter_respects_the_order_of_each_image(jitter):
    x, factors, got = jitter
    for image, row, order, result in zip(x.astype(float), factors.tolist(), ORDERS, got):
        for op in order:
            image = FLOAT_OPS[OPS[op]](image, row[op])
        np.testing.assert_allclose(result, image, rtol=0, atol=1e-5)


def test_color_jitter_of_one_image_equals_its_row_of_the_batch(jitter):
    x, factors, want = jitter
    single = tf.data.Dataset.from_tensor_slices((x, factors, ORDERS)).batch(1, drop_remainder=True)
    got = np.concatenate(list(single.map(ops.color_jitter)))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    eager = ops.color_jitter(tf.constant(x[7:8]), factors[7:8], ORDERS[7:8])
    np.testing.assert_allclose(eager, want[7:8], rtol=0, atol=1e-6)


# --- geometry ------------------------------------------------------------------------------


def test_crop_and_resize_agrees_with_pil(pictures):
    width, height = pictures[0].size
    for i, picture in enumerate(pictures):
        top, left, h, w = box = (3 * i, 4 * i, height // (1 + i % 3) - 23, width - 40)
        size = (32, 224)[i % 2]
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
    image, short, side = Image.fromarray(random_image(0, height, width)), min(height, width), size - 5
    resized = (int(size * width / short), int(size * height / short))
    want = np.asarray(image.resize(resized, Image.Resampling.BILINEAR), int)
    got = ops.resize_short_side(tf.constant(np.asarray(image)), size)
    assert got.shape == want.shape
    assert np.abs(got.numpy() - want).max() <= 1

    top, left = (int(round((length - side) / 2.0)) for length in want.shape[:2])
    centre = got[top : top + side, left : left + side]
    np.testing.assert_array_equal(ops.center_crop(got, side), centre)


@pytest.mark.parametrize(
    "op",
    [
        lambda image: ops.crop_and_resize(image, (3, 7, 40, 31), 24),
        lambda image: ops.center_crop(ops.resize_short_side(image, 33), 24),
    ],
)
def test_geometry_is_the_same_in_tf_data(op):
    image = random_image(0)
    np.testing.assert_array_equal(
        next(iter(tf.data.Dataset.from_tensors(image).map(op))), op(tf.constant(image))
    )


# --- decoding ------------------------------------------------------------------------------

RGBA = Image.fromarray(random_image(0, 33, 41, 4))
RGB, GRAY, PALETTE = RGBA.convert("RGB"), RGBA.convert("L"), RGBA.convert("RGB").quantize(64)
FRAMES = {"save_all": True, "append_images": [PALETTE.rotate(180)]}


def encode(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


ENCODED = {
    "jpeg": encode(RGB, "JPEG"),
    "jpeg progressive 4:4:4": encode(RGB, "JPEG", progressive=True, subsampling=0),
    "jpeg gray": encode(GRAY, "JPEG"),
    "jpeg cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    "png": encode(RGB, "PNG"),
    "png gray": encode(GRAY, "PNG"),
    "png gray alpha": encode(RGBA.convert("LA"), "PNG"),
    "png rgba": encode(RGBA, "PNG"),
    "png palette": encode(PALETTE, "PNG"),
    "png palette transparent": encode(PALETTE, "PNG", transparency=3),
    "png 1 bit": encode(GRAY.convert("1"), "PNG"),
    "png rgb 16 bit": tf.io.encode_png(np.asarray(RGB).astype(np.uint16) * 250 + 99).numpy(),
    "webp": encode(RGB, "WEBP"),
    "webp rgba": encode(RGBA, "WEBP", lossless=True, exact=True),
    "webp animated": encode(RGB, "WEBP", **FRAMES),
    "bmp": encode(RGB, "BMP"),
    "bmp gray": encode(GRAY, "BMP"),
    "gif": encode(PALETTE, "GIF"),
    "gif animated": encode(PALETTE, "GIF", **FRAMES),
    **{f"{f} 1x1": encode(RGB.crop((5, 5, 6, 6)), f) for f in ("JPEG", "PNG", "WEBP", "BMP", "GIF")},
}


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "tf.data"])
def test_decode_agrees_with_pil(name, in_graph):
    encoded = ENCODED[name]
    data = tf.data.Dataset.from_tensors(encoded)
    got = next(iter(data.map(ops.decode))) if in_graph else ops.decode(encoded)
    want = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), int)
    assert got.dtype == tf.uint8 and got.shape == want.shape
    difference = np.abs(got.numpy() - want)
    assert difference.max() <= 2 and difference.mean() < 1 if "jpeg" in name else not difference.any()


def test_decode_keeps_the_high_byte_of_16_bit_gray():  # PIL saturates instead
    wide = np.arange(0, 65536, 257 * 3, np.uint16).reshape(2, 43, 1) if False else None
