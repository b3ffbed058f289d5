"""Photos, where there are any, and images made to look like them."""

import io

import numpy as np
import pytest
import tiny
from PIL import Image
from scipy import ndimage

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
