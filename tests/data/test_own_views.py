"""A recipe, an op and a source by their import paths, and another recipe for the key view."""

import re

import numpy as np
import own_views
import pytest
import tiny
from crop_box import crop_box
from PIL import Image, ImageOps

from moco_tf.data import recipes, sources
from moco_tf.data.batch import TwoViewBatch
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.two_views import two_view_dataset
from moco_tf.pretraining import build

SIZE, SEED, BATCH = 32, 7, 16


def pil_view(image, u, scale, grays):
    """A view of `own_views` in PIL: uint8 SxSx3."""
    image = Image.fromarray(image)
    u = u.astype(float)
    top, left, height, width = crop_box(u[:22], image.height, image.width, scale)
    image = image.crop((left, top, left + width, top + height))
    image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    if u[22] < 0.5:
        image = ImageOps.mirror(image)
    if u[23] < 0.5:
        image = ImageOps.solarize(image, 128)
    if grays and u[24] < 0.5:
        image = image.convert("L").convert("RGB")
    return np.asarray(image)


def batches(augment_on, jit_compile=True):
    recipe, recipe_k = recipes.find_both("own_views:strong", "own_views:weak")
    data = two_view_dataset(
        sources.open_source("own_views:50"),
        recipe,
        BatchLayout(BATCH, group=4),
        recipe_k=recipe_k,
        image_size_px=SIZE,
        seed=SEED,
        start_step=2,
        augment_on=augment_on,
        jit_compile=jit_compile,
        with_index=True,
    )
    return next(iter(data.as_numpy_iterator()))


def pixels(x, recipe):
    """0..255 again, by the recipe's own mean and standard deviation."""
    return (x * np.array(recipe.std) + np.array(recipe.mean)) * 255


@pytest.mark.parametrize("place", ["host", "host without XLA", "device"])
def test_each_view_has_its_own_recipe_and_normalization(place):
    images, _ = own_views.synthetic.shapes(50, seed=3)
    batch = batches(place.split()[0], jit_compile="without" not in place)
    assert set(batch) <= set(TwoViewBatch.__annotations__)
    index, order = batch["index"], batch["order"]
    assert (order != np.arange(BATCH)).any()
    draws_q = np.stack([own_views.strong.draw(SEED, 2 * BATCH + i, 0) for i in range(BATCH)])
    draws_k = np.stack([own_views.weak.draw(SEED, 2 * BATCH + i, 1) for i in range(BATCH)])
    x_q, x_k = batch["x_q"], batch["x_k"]
    if place == "device":
        assert draws_q.shape == (BATCH, 25) and draws_k.shape == (BATCH, 24)
        np.testing.assert_array_equal(batch["draws_q"], draws_q)
        np.testing.assert_array_equal(batch["draws_k"], draws_k[order])
        x_q = own_views.strong.photometric(x_q, batch["draws_q"])
        x_k = own_views.weak.photometric(x_k, batch["draws_k"])
    for i in range(BATCH):
        want = pil_view(images[index[i]], draws_q[i], (0.2, 1.0), grays=True)
        assert np.abs(pixels(x_q[i], own_views.strong) - want).max() < 2.1  # bytes, rounded twice
        j = order[i]
        want = pil_view(images[index[j]], draws_k[j], (0.7, 1.0), grays=False)
        assert np.abs(pixels(x_k[i], own_views.weak) - want).max() < 1.1


def test_without_a_second_recipe_both_views_share_the_first():
    query, key = recipes.find_both("own_views:weak", None)
    assert query is key is own_views.weak
    query, key = recipes.find_both("moco:v1", "moco:v2")
    assert query is recipes.find("moco:v1") and key is recipes.find("moco:v2")


def test_a_run_takes_recipes_and_source_by_their_import_paths(tmp_path, monkeypatch):
    seen = []

    def make_dataset(*args):
        seen.extend(args)
        raise InterruptedError

    monkeypatch.setattr(build, "make_dataset", make_dataset)
    recipe = {"data.recipe": "own_views:strong", "data.recipe_k": "own_views:weak"}
    with pytest.raises(InterruptedError):  # before it trains
        tiny.pretrain(tmp_path, **recipe, **{"data.source": "own_views:48"}, stop_after_steps=1)
    assert seen[0].num_examples == 48
    assert seen[1] is own_views.strong and seen[2] is own_views.weak


@pytest.mark.slow
def test_a_run_trains_on_the_views_of_its_recipes(tmp_path):
    def first_loss(name, **overrides):
        flags = {"data.source": "own_views:48", "data.recipe": "own_views:strong"}
        flags |= {"stop_after_steps": 1, "log_every_steps": 1, **overrides}
        report = name == "host"
        tiny.pretrain(tmp_path / name, report=report, **flags)
        assert (tmp_path / name / "report.html").exists() == report
        return tiny.losses(tmp_path / name)[0]

    weak_keys = {"data.recipe_k": "own_views:weak"}
    loss = first_loss("host", **weak_keys)
    assert np.isfinite(loss)
    assert abs(first_loss("device", **weak_keys, **{"data.augment_on": "device"}) - loss) < 1e-4
    assert abs(first_loss("shared") - loss) > 1e-4


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("own_views:none", "which own_views does not have"),
        ("own_views:Solarize", "which is no Recipe"),
        ("no_such.module:weak", "but Python finds no module 'no_such.module'"),
        ("own_views.more:weak", "but Python finds no module 'own_views.more'"),
        ("../own_views:weak", "but Python finds no module"),
    ],
)
def test_what_is_no_recipe_is_refused_with_both_ways_to_name_one(address, problem):
    both = "^`--config.data.recipe_k` must be one of moco:v1, .*moco:cifar10, .*or the import path"
    with pytest.raises(ValueError, match=both) as error:
        recipes.find_both("moco:v2", address)
    assert f"Received: {address!r}, {problem}" in str(error.value)


def test_a_module_without_addresses_is_no_source():
    with pytest.raises(ValueError, match="folder:DIR.*Received: 'json:x', which has no ADDRESSES"):
        sources.open_source("json:x")


def test_an_import_that_fails_inside_the_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=re.escape("'not_installed_anywhere'")):
        recipes.find("needs_more:weak")


def test_the_examples_of_contributing_work(tmp_path, monkeypatch):
    """The modules in the sections on recipes and sources, each named in its first line."""
    text = (tiny.ROOT / "CONTRIBUTING.md").read_text()
    for name in ("my_recipes", "my_photos"):
        (code,) = re.findall(rf"```python\n# {name}\.py\n(.*?)```", text, re.DOTALL)
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    image = own_views.synthetic.shapes(1, seed=0)[0][0]
    Image.fromarray(image).save(tmp_path / "one.png")
    source = sources.open_source(f"my_photos:{tmp_path}/*.png")
    assert source.num_examples == 1
    np.testing.assert_array_equal(source.image(0), image)
    recipe = recipes.find("my_recipes:gray")
    u = recipe.draw(0, 0, 0)
    x = recipe.photometric(recipe.geometry(source.image(0), u, SIZE)[None], u[None])[0]
    shades = pixels(x.numpy(), recipe)
    np.testing.assert_allclose(shades, shades.mean(axis=-1, keepdims=True) + np.zeros(3), atol=0.01)
