"""Generated scenes: shapes of three classes on a noisy background, with their label maps."""

import numpy as np
from PIL import Image

COLORS = np.array([[90, 90, 90], [200, 40, 40], [40, 180, 60], [60, 70, 210]])
CLASSES = ("background", "square", "disc", "bar")


def scene(seed, height=64, width=80):
    """An image, uint8 HxWx3, and its label map, uint8 HxW."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    label = np.zeros((height, width), np.uint8)
    for kind in rng.permutation([1, 2, 3]):
        size = int(rng.integers(14, 26))
        top, left = rng.integers(0, height - size), rng.integers(0, width - size)
        inside = (y >= top) & (y < top + size) & (x >= left) & (x < left + size)
        if kind == 2:
            centre = top + size / 2, left + size / 2
            inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (size / 2) ** 2
        if kind == 3:
            inside &= y < top + size // 2
        label[inside] = kind
    noise = rng.normal(0, 12, (height, width, 3))
    image = np.clip(COLORS[label] + noise, 0, 255).astype(np.uint8)
    return image, label


def write(root, count, first=0, **size):
    """Writes images/ and labels/ for `folders:`; returns the address."""
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for i in range(count):
        image, label = scene(first + i, **size)
        Image.fromarray(image).save(root / "images" / f"{i:03}.png")
        Image.fromarray(label).save(root / "labels" / f"{i:03}.png")
    return f"folders:{root / 'images'},{root / 'labels'}"
