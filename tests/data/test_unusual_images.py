"""Images that are legal but rarely meant: 12 bits in 16, EXIF orientations, too many pixels."""

import functools
import logging

import numpy as np
import pytest
import tiny
from PIL import Image

from moco_tf import encoders
from moco_tf.data import examination, image_ops, sources
from moco_tf.data.recipes import moco
from moco_tf.training.guard import Guard
from moco_tf.training.round import Round


def gray_16(path, highest, seed=0):
    """A 16-bit PNG of noise with values up to `highest`; returns the values."""
    values = np.random.default_rng(seed).integers(0, highest + 1, (12, 15)).astype(np.uint16)
    values[0, 0] = highest
    Image.fromarray(values).save(path)
    return values


def photos(folder, orientation=1):
    """Three JPEGs of noise with an EXIF orientation."""
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 12, 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(folder / f"{i}.jpg", exif=exif, quality=95)


def test_16_bit_images_are_scaled_by_their_white(tmp_path):
    values = gray_16(tmp_path / "x.png", 4095)
    encoded = (tmp_path / "x.png").read_bytes()
    scaled = image_ops.decode(encoded, white=4095).numpy()
    want = np.round(values.astype(np.float32) * (255 / 4095)).astype(np.uint8)
    np.testing.assert_array_equal(scaled, np.repeat(want[..., None], 3, axis=2))
    assert image_ops.decode(encoded, white=1000).numpy().max() == 255  # more is white, too
    np.testing.assert_array_equal(image_ops.decode(encoded)[..., 0], values >> 8)  # as in 0.1.0
    Image.fromarray(want).save(tmp_path / "8.png")  # images of 8 bits stay as they are
    as_8_bit = image_ops.decode((tmp_path / "8.png").read_bytes(), white=4095)
    np.testing.assert_array_equal(as_8_bit[..., 0], want)


def test_nearly_constant_images_are_warned_of_with_the_field_that_helps(tmp_path, caplog):
    for i in range(3):
        gray_16(tmp_path / f"{i}.png", 3000, seed=i)
    examination.look_at(sources.open_source(f"folder:{tmp_path}"))
    assert "3 of 3 images looked at, such as 0.png, are nearly constant" in caplog.text
    assert "values up to 3000: to make that white, set --config.data.white=4095." in caplog.text
    caplog.clear()
    config = tiny.config(data__white=4095)
    examination.look_at(sources.open_source(f"folder:{tmp_path}", decode=config.data.decode))
    assert not caplog.records


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_pixels_are_as_stored_and_an_orientation_is_said(orientation, tmp_path, caplog):
    photos(tmp_path, orientation)
    source = sources.open_source(f"folder:{tmp_path}")
    assert source.image(0).shape == (8, 12, 3)
    stored = np.asarray(Image.open(tmp_path / "0.jpg"))  # PIL, too, leaves it to the caller
    assert np.abs(source.image(0).numpy().astype(int) - stored).mean() < 2
    examination.look_at(source)
    assert ("3 of 3 images looked at, such as 0.jpg, have an EXIF" in caplog.text) == (
        orientation != 1
    )


def test_a_too_large_image_is_named_with_its_size_and_the_limit(tmp_path, caplog):
    photos(tmp_path)
    decode = tiny.config(data__max_pixels=95).data.decode  # each has 96
    source = sources.open_source(f"folder:{tmp_path}", decode=decode)
    (tmp_path / "1.jpg").write_bytes(b"no image")
    assert examination.why_bad(source, "1.jpg") == ""
    guard = Guard(None, 3, 1.0, "", "", why_bad=functools.partial(examination.why_bad, source))
    losses = {"loss": np.float32([1.0])}
    with caplog.at_level(logging.WARNING):
        guard.measure(Round(1, 1, losses, seconds=1.0, bad=2, bad_names=["0.jpg", "1.jpg"]))
    assert "decoded: 0.jpg (12 x 8 px; --config.data.max_pixels=95)" in caplog.text
    assert "decoded: 1.jpg" in caplog.text
    assert sources.open_source(f"folder:{tmp_path}").image(0).shape == (8, 12, 3)


def test_what_decodes_images_goes_to_evaluation_and_serving():
    data = tiny.config(data__white=4095, data__max_pixels=10**6).data
    crop = encoders.Preprocessing(moco.v2, 16, 18, data.decode)
    facts = crop.to_dict()
    assert (facts["white"], facts["max_pixels"]) == (4095, 10**6)
    assert encoders.Preprocessing.from_dict(facts).decode.keywords == data.decode.keywords
