"""Views by PIL with torchvision's chain of ops, from the draws of a recipe; and images for them."""

import numpy as np
from crop_box import crop_box
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import ndimage

DRAWS = {"jitter": 9, "gray": 1, "blur": 2, "solarize": 1}


def synthetic_photo(seed, height=150, width=200):
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    smooth = sum(s * ndimage.gaussian_filter(noise, (s, s, 0)) for s in (1.5, 5, 20))
    return Image.fromarray(np.clip(smooth / smooth.std() * 55 + 128, 0, 255).astype(np.uint8))


def turn_hue(image, shift):
    h, s, v = image.convert("HSV").split()
    turned = np.asarray(h) + np.int32(shift * 255).astype(np.uint8)  # wraps round
    return Image.merge("HSV", (Image.fromarray(turned), s, v)).convert("RGB")


def jitter(image, u, *spreads):
    for i in np.argsort(u[5:9]):
        amount = spreads[i] * (2 * u[1 + i] - 1)
        if i == 3:
            image = turn_hue(image, amount)
        else:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[i]
            image = enhance(image).enhance(1 + amount)
    return image


PIL_OPS = {
    "jitter": jitter,
    "gray": lambda image, u: image.convert("L").convert("RGB"),
    "blur": lambda image, u, a, b: image.filter(ImageFilter.GaussianBlur(a + u[1] * (b - a))),
    "solarize": lambda image, u: ImageOps.solarize(image),
}


def pil_view(paper, image, u, size):
    """A view, float32 SxSx3 in [0, 1].

    Args:
        paper: smallest area, mean and standard deviation, then ops in order: name, probability and
            parameters.
        image: PIL image.
        u: draws of the recipe.
        size: S.
    """
    smallest, _, *ops = paper
    top, left, h, w = crop_box(u[:22], image.height, image.width, (smallest, 1.0))
    image = image.crop((left, top, left + w, top + h))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    image = ImageOps.mirror(image) if u[22] < 0.5 else image
    u = u[23:].tolist()
    for op, p, *parameters in ops:
        if u[0] < p:
            image = PIL_OPS[op](image, u, *parameters)
        u = u[DRAWS[op] :]
    assert not u
    return np.asarray(image, np.float32) / 255
