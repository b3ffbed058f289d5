"""MoCo v3's asymmetric pair of recipes against PIL with the same parameters."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from pil_views import pil_view, synthetic_photo

from moco_tf.data import recipes
from moco_tf.data.image_ops import from_planes, to_planes
from moco_tf.data.recipes.recipe import Solarize

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLORS = ("jitter", 0.8, 0.4, 0.4, 0.2, 0.1), ("gray", 0.2)
BLUR, SOLARIZE = ("blur", 1.0, 0.1, 2.0), ("solarize", 0.2)
PAPER = {  # main_moco.py: smallest area, mean and standard deviation, ops in order
    "resnet_q": (0.2, IMAGENET, *COLORS, BLUR),
    "resnet_k": (0.2, IMAGENET, *COLORS, ("blur", 0.1, 0.1, 2.0), SOLARIZE),
    "vit_q": (0.08, IMAGENET, *COLORS, BLUR),
    "vit_k": (0.08, IMAGENET, *COLORS, ("blur", 0.1, 0.1, 2.0), SOLARIZE),
}


@pytest.mark.parametrize("name", PAPER)
def test_views_agree_with_pil(name):
    recipe = recipes.find(f"moco_v3:{name}")
    (mean, std), errors, solarized = PAPER[name][1], [], 0
    for slot in range(12):
        image = synthetic_photo(slot)
        u = recipe.draw(0, slot, 1)
        solarized += name.endswith("k") and float(u[-1]) < 0.2
        x = recipe.geometry(tf.constant(np.asarray(image)), u, 64)
        x = recipe.photometric(x[None], u[None])[0] * std + mean
        want = pil_view(PAPER[name], image, u.numpy().astype(float), 64)
        errors.append(255 * np.abs(x - want).mean())
    assert np.mean(errors) < 2
    assert np.max(errors) < 4  # PIL keeps bytes between ops, and its hue is one
    assert bool(solarized) == name.endswith("k")


def test_solarize_is_pils_for_each_byte():
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    want = np.asarray(ImageOps.solarize(Image.fromarray(image)))
    x = Solarize(p=0.5)(to_planes(image[None]), tf.constant([[0.4]]))
    np.testing.assert_allclose(255 * from_planes(x)[0], want, atol=1e-3)
    x = Solarize(p=0.5)(to_planes(image[None]), tf.constant([[0.6]]))
    np.testing.assert_allclose(255 * from_planes(x)[0], image, atol=1e-3)
