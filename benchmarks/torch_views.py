"""torchvision's augmentations written as PIL operations, which its transforms are thin over.

For the peers: `view = official(...)`, then `view(image)` gives one normalised tensor 3xSxS.
"""

import math
import random

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter


def official(size, smallest_area, mean, std, blur):
    """The official code's view, of --aug-plus and of its CIFAR-10 demo.

    Args:
        size: side of the view, px.
        smallest_area: share of the image that a crop has at least.
        mean, std: of the channels.
        blur: whether half of the views are blurred, as in MoCo v2.
    """
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (mean, std))

    def view(image):
        image = crop(image, size, smallest_area)
        if random.random() < 0.8:
            image = jitter(image)
        if random.random() < 0.2:
            image = image.convert("L").convert("RGB")
        if blur and random.random() < 0.5:
            image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2)))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return x.sub_(mean).div_(std)

    return view


def crop(image, size, smallest_area):
    """RandomResizedCrop."""
    for _ in range(10):
        area = image.width * image.height * random.uniform(smallest_area, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if w <= image.width and h <= image.height:
            x, y = random.randint(0, image.width - w), random.randint(0, image.height - h)
            image = image.crop((x, y, x + w, y + h))
            break
    return image.resize((size, size), Image.Resampling.BILINEAR)


def jitter(image):
    """ColorJitter(.4, .4, .4, .1)."""
    ops = [
        lambda x: ImageEnhance.Brightness(x).enhance(random.uniform(0.6, 1.4)),
        lambda x: ImageEnhance.Contrast(x).enhance(random.uniform(0.6, 1.4)),
        lambda x: ImageEnhance.Color(x).enhance(random.uniform(0.6, 1.4)),
        lambda x: hue(x, random.uniform(-0.1, 0.1)),
    ]
    for op in random.sample(ops, 4):
        image = op(image)
    return image


def hue(image, shift):
    """Turns the hue by `shift` of the circle, a byte as PIL keeps it."""
    h, s, v = image.convert("HSV").split()
    h = Image.fromarray(np.array(h) + np.int32(shift * 255).astype(np.uint8))
    return Image.merge("HSV", (h, s, v)).convert("RGB")
