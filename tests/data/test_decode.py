"""Decoding against PIL, format by format."""

import io

import numpy as np
import pytest
import tensorflow as tf
from pictures import PHOTOS, announcing, encode, random_image
from PIL import Image

from moco_tf.data import image_ops as ops

RGBA = Image.fromarray(random_image(0, 33, 41, 4))
RGB, GRAY, CMYK, BITS = (RGBA.convert(mode) for mode in ("RGB", "L", "CMYK", "1"))
PALETTE = RGB.quantize(64)
MODES = {
    "JPEG": (RGB, GRAY, CMYK),
    "PNG": (RGB, RGBA, GRAY, RGBA.convert("LA"), PALETTE, BITS),
    "WEBP": (RGB, RGBA),
    "BMP": (RGB, RGBA, GRAY, PALETTE),
    "GIF": (PALETTE, GRAY),
}
FRAMES = {"save_all": True, "append_images": [PALETTE.rotate(180)]}

ENCODED = {
    **{f"{f} {image.mode}": encode(image, f) for f, images in MODES.items() for image in images},
    **{f"{f} 1x1": encode(RGB.crop((5, 5, 6, 6)), f) for f in MODES},
    "JPEG progressive 4:4:4": encode(RGB, "JPEG", progressive=True, subsampling=0),
    "PNG palette with transparency": encode(PALETTE, "PNG", transparency=3),
    "GIF animated": encode(PALETTE, "GIF", **FRAMES),
    "WEBP animated": encode(RGB, "WEBP", **FRAMES),
    "WEBP animated with alpha": encode(RGBA, "WEBP", lossless=True, exact=True, **FRAMES),
    **{path.name: path.read_bytes() for path in PHOTOS[::12]},
}
REFUSED = ("BMP P", "WEBP animated", "WEBP animated with alpha")  # TensorFlow misreads them


DECODED = [name for name in ENCODED if name not in REFUSED]


@pytest.fixture(scope="module")
def in_tf_data():
    """Each image by its name, decoded in one pipeline."""
    data = tf.data.Dataset.from_tensor_slices([ENCODED[name] for name in DECODED])
    return dict(zip(DECODED, data.map(ops.decode), strict=True))


@pytest.mark.parametrize("name", DECODED)
def test_decode_agrees_with_pil(name, in_tf_data):
    encoded = ENCODED[name]
    want = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), int)
    for got in (ops.decode(encoded), in_tf_data[name]):
        assert got.dtype == tf.uint8 and got.shape == want.shape
        difference = np.abs(got.numpy() - want)
        lossless = name.startswith(("PNG", "BMP", "GIF"))
        assert difference.max() <= (0 if lossless else 2) and difference.mean() < 1


@pytest.mark.parametrize("name", REFUSED)
def test_what_tensorflow_misreads_is_refused(name):
    with pytest.raises(tf.errors.InvalidArgumentError, match="not supported"):
        ops.decode(ENCODED[name])


@pytest.mark.parametrize("channels", [1, 3])
def test_decode_keeps_the_high_byte_of_16_bits(channels):  # of which PIL saturates gray
    wide = np.random.default_rng(0).integers(0, 65536, (5, 7, channels), np.uint16)
    want = np.broadcast_to(wide >> 8, (5, 7, 3))
    np.testing.assert_array_equal(ops.decode(tf.io.encode_png(wide)), want)


@pytest.mark.parametrize("name", [f"{f} {images[0].mode}" for f, images in MODES.items()])
def test_decode_of_truncated_bytes_raises(name):
    encoded = ENCODED[name]
    for kept in (0, 10, len(encoded) // 2, len(encoded) * 9 // 10):
        with pytest.raises(tf.errors.InvalidArgumentError):
            ops.decode(encoded[:kept])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "VP8 ", "VP8L"])
def test_a_small_file_cannot_announce_a_huge_image(kind):
    message = r"at most 67108864 pixels(?s:.*)width, height:\D*12000\D+16000"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        ops.decode(tf.constant(announcing(kind, 12_000, 16_000)))
    if kind == "BMP":  # rows from the top
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            ops.decode(tf.constant(announcing(kind, 12_000, -16_000)))
    if kind != "GIF":
        assert ops.decode(tf.constant(announcing(kind, 1, 1))).shape == (1, 1, 3)


def test_an_image_of_the_largest_size_is_decoded():
    large = Image.new("L", (8192, 8192), 7)
    assert ops.decode(tf.constant(encode(large, "PNG"))).shape == (8192, 8192, 3)
