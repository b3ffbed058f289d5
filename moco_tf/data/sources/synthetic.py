"""Source "synthetic:CONTENT": generated images, to try the whole system without data.

"fabrics" is the cloth of the quickstart, see fabrics.py. On "shapes", each image is covered with
copies of one shape in random places, sizes, turns and colors. The shape is the class: it survives
cropping, flipping and color changes, which MoCo's views undergo, while colors, places and sizes
tell nothing about it.
"""

import numpy as np

from moco_tf.data.sources.fabrics import DYES, fabrics
from moco_tf.data.sources.source import Source, from_arrays

ADDRESSES = ("synthetic:fabrics[:SPLIT]", "synthetic:shapes[:SPLIT]")
SPLITS = {"train": (4096, 0), "test": (1024, 1)}  # number of images, seed
SIZE_PX = 32
COPIES = 7
BACKGROUND = 0.2


def open(rest: str, **_) -> Source:
    """Opens "synthetic:fabrics[:train|test]" or "synthetic:shapes[:train|test]": 32 px images.

    Raises:
        ValueError: for anything else.
    """
    content, _, split = rest.partition(":")
    split = split or "train"
    if content not in CONTENTS or split not in SPLITS:
        raise ValueError(
            f"The address must be synthetic:{{{'|'.join(CONTENTS)}}}[:{'|'.join(SPLITS)}]. "
            f"Received: 'synthetic:{rest}'."
        )
    draw, classes = CONTENTS[content]
    return from_arrays(*draw(*SPLITS[split]), classes=classes)


def labelled_splits(rest: str, **_) -> tuple[str, str]:
    """The train and the test split."""
    content = rest.partition(":")[0]
    return f"synthetic:{content}:train", f"synthetic:{content}:test"


def shapes(num_images: int, seed: int, size: int = SIZE_PX) -> tuple[np.ndarray, np.ndarray]:
    """Draws images of shapes.

    Args:
        num_images: number of images.
        seed: the same seed gives the same images.
        size: side of the images, px.

    Returns:
        `(images, labels)`: uint8 num_images x size x size x 3, and int64 in 0..7.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(SHAPES), size=num_images)
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    images = np.empty((num_images, size, size, 3), np.uint8)
    for image, label in zip(images, labels, strict=True):
        # One background and little color: otherwise these tell images apart so well that an encoder
        # learns nothing else.
        canvas = rng.normal(BACKGROUND, 0.03, (size, size, 3)).astype(np.float32)
        for _ in range(COPIES):
            center_x, center_y = rng.uniform(0, size, 2)
            radius = rng.uniform(0.13, 0.26) * size
            turn = rng.uniform(0, 2 * np.pi)
            dx = (x - center_x) / radius
            dy = (y - center_y) / radius
            u = np.cos(turn) * dx + np.sin(turn) * dy
            v = np.cos(turn) * dy - np.sin(turn) * dx
            # Signed distance in pixels to coverage: a soft edge of one pixel.
            alpha = np.clip(0.5 - SHAPES[label](u, v) * radius, 0, 1)[..., None]
            color = rng.uniform(0.6, 1) + rng.uniform(-0.1, 0.1, 3)
            canvas = canvas + alpha * (color - canvas)
        image[:] = np.clip(canvas * 255, 0, 255)
    return images, labels


def _polygon(corners):
    def distance(u, v):
        angles = 2 * np.pi * np.arange(corners) / corners
        inner = np.cos(np.pi / corners)
        return np.max([u * np.cos(a) + v * np.sin(a) for a in angles], axis=0) - inner

    return distance


def _ring(u, v):
    return np.abs(np.hypot(u, v) - 0.75) - 0.2


def _bar(u, v):
    return np.maximum(np.abs(u) - 1, np.abs(v) - 0.22)


def _cross(u, v):
    return np.minimum(_bar(u, v), _bar(v, u))


def _star(u, v):
    angle = np.arctan2(v, u)
    radius = np.hypot(u, v)
    return radius - (0.62 + 0.38 * np.cos(5 * angle))


def _crescent(u, v):
    return np.maximum(np.hypot(u, v) - 1, 0.75 - np.hypot(u - 0.5, v))


def _disc(u, v):
    return np.hypot(u, v) - 0.9


# Signed distance functions (negative inside) of shapes of radius 1.
SHAPES = (_disc, _ring, _polygon(3), _polygon(4), _cross, _bar, _star, _crescent)
NAMES = ("disc", "ring", "triangle", "square", "cross", "bar", "star", "crescent")
CONTENTS = {"fabrics": (fabrics, DYES), "shapes": (shapes, NAMES)}
