"""Photos, where there are any, and images made to look like them."""

import io
import zlib

import numpy as np
import pytest
import tiny
from PIL import Image
from scipy import ndimage

from moco_tf.data.sources import synthetic

PHOTOS = sorted((tiny.DATA / "imagenet_sample").glob("*.JPEG"))


def random_image(seed, height=72, width=96, channels=3):
    noise = np.random.default_rng(seed).normal(size=(height, width, channels))
    smooth = ndimage.gaussian_filter(noise, (2.0, 2.0, 0.0))
    return np.clip(smooth / smooth.std() * 60 + 128, 0, 255).astype(np.uint8)


def read_photos(count, height, width):
    """The centres of photos of different sizes, at their own resolution."""
    if not PHOTOS:
        pytest.skip("no ../shared/data/imagenet_sample beside the project")
    photos = [Image.open(p).convert("RGB") for p in PHOTOS]
    photos = [p for p in photos if p.width >= width and p.height >= height]
    picked = photos[:: len(photos) // count][:count]
    corners = [((p.width - width) // 2, (p.height - height) // 2) for p in picked]
    return [p.crop((x, y, x + width, y + height)) for p, (x, y) in zip(picked, corners)]


def encode(image, kind, **options):
    """A PIL image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def announcing(kind, width, height):
    """An image of one pixel whose header announces others."""
    options = {"lossless": kind == "VP8L"} if "VP8" in kind else {}
    content = bytearray(encode(Image.new("RGB", (1, 1)), "WEBP" if options else kind, **options))
    if kind == "PNG":
        content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    elif kind == "GIF":
        content[6:10] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    elif kind == "BMP":
        content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little", signed=True)
    elif kind == "VP8 ":
        content[26:30] = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    elif kind == "VP8L":
        content[21:25] = (width - 1 + (height - 1 << 14)).to_bytes(4, "little")
    else:
        start = content.index(b"\xff\xc0")
        content[start + 5 : start + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(content)


def images_with_three_bad_ones(root):
    """48 PNGs of shapes in a folder, three of them cut short."""
    root.mkdir()
    for i, image in enumerate(synthetic.shapes(48, seed=0)[0]):
        Image.fromarray(image).save(root / f"{i:02}.png")
    for name in ("05.png", "17.png", "40.png"):
        path = root / name
        path.write_bytes(path.read_bytes()[:100])
    return root
