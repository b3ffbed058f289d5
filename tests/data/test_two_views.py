"""The input pipeline is a pure function of (seed, step), on any topology."""

import collections
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from moco_tf.data import bad_images, sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.recipes import moco
from moco_tf.data.recipes.recipe import IMAGENET, Grayscale, RandomResizedCrop, Recipe
from moco_tf.data.sources import synthetic
from moco_tf.data.tfdata import image_of_slot
from moco_tf.data.two_views import key_order, two_view_dataset

SIZE = 16
# Few ops, so that the many pipelines here are traced quickly.
LIGHT = Recipe(RandomResizedCrop((0.2, 1.0)), (Grayscale(p=0.2),), **IMAGENET)


@pytest.fixture(scope="module")
def source():
    return sources.from_arrays(*synthetic.shapes(50, seed=3))


def take(source, layout, count, recipe=LIGHT, jit_compile=False, **kwargs):
    """The first batches of a pipeline; XLA takes longer than all else here."""
    options = {"image_size_px": SIZE, "seed": 7, "jit_compile": jit_compile, **kwargs}
    data = two_view_dataset(source, recipe, layout, **options)
    return list(data.take(count).as_numpy_iterator())


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def join(batches):
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


@pytest.fixture(scope="module")
def whole(source):
    """Five batches of four groups on one device."""
    return take(source, BatchLayout(16, group=4), 5)


@pytest.fixture(scope="module")
def second_host(source):
    """What the second of two hosts sees of the second batch."""
    return join(take(source, BatchLayout(16, 2, 4, 4), 4, host=1)[2:])


def test_resuming_gives_the_same_batches(source, whole):
    resumed = take(source, BatchLayout(16, group=4), 2, start_step=3)
    for got, want in zip(resumed, whole[3:], strict=True):
        assert_equal(got, want)


def test_replicas_and_hosts_share_one_global_batch(source, whole, second_host):
    replicas = join(take(source, BatchLayout(16, 1, 4, 4), 8)[4:])
    assert_equal(replicas, whole[1])
    for name in ("x_q", "row", "name"):
        np.testing.assert_array_equal(second_host[name], whole[1][name][8:])


def test_key_views_are_permuted_within_the_host_and_order_says_how(source, whole, second_host):
    unshuffled = take(source, BatchLayout(16, group=4), 2, shuffle=False)[1]
    assert "order" not in unshuffled
    for batch, rows in ((whole[1], range(16)), (second_host, range(8, 16))):
        order = batch["order"]
        assert sorted(order) == list(rows) and (order != np.array(rows)).any()
        np.testing.assert_array_equal(batch["x_k"], unshuffled["x_k"][order])
        np.testing.assert_array_equal(batch["x_q"], unshuffled["x_q"][rows])


def test_one_group_per_host_leaves_the_shuffling_to_the_step(source):
    assert BatchLayout(16, 2, 2).shuffling == "step"
    assert BatchLayout(16, 1, 2).shuffling == "input"
    assert BatchLayout(16).shuffling == "none"
    assert "order" not in two_view_dataset(source, LIGHT, BatchLayout(16, 2, 2)).element_spec


def test_positives_stay_in_their_group_one_time_in_g():
    group = np.arange(256) // 32
    share = np.mean([(key_order(256, 0, s, 0).numpy() // 32 == group).mean() for s in range(100)])
    assert abs(share - 1 / 8) < 0.01


def test_host_and_device_placement_give_the_same_pixels(source, whole):
    """With few ops; tests of own views have them all."""
    layout = BatchLayout(16, group=4)
    host = take(source, layout, 1, jit_compile=True)[0]
    device = take(source, layout, 1, augment_on="device")[0]
    assert device["x_q"].dtype == np.uint8
    for x, draws in (("x_q", "draws_q"), ("x_k", "draws_k")):
        pixels = LIGHT.photometric(device[x], device[draws])
        np.testing.assert_allclose(pixels, host[x], atol=1e-4)
        np.testing.assert_allclose(whole[0][x], host[x], atol=1e-4)


def test_an_epoch_shows_each_image_at_most_once_in_a_new_order():
    slots = tf.range(96, dtype=tf.int64)
    images = [int(image_of_slot(s, 16, 50, 0)) for s in slots]
    first, second = images[:48], images[48:]
    assert len(set(first)) == len(set(second)) == 48
    assert set(first) | set(second) <= set(range(50))
    assert first != second
    other_seed = [int(image_of_slot(s, 16, 50, 1)) for s in slots]
    assert other_seed != images


def test_a_sample_is_augmented_anew_in_every_epoch(whole):
    epochs = join(whole[:3]), join(whole[3:])  # 48 of the 50 images, 32 of them again
    by_name = [{bytes(n): x for n, x in zip(e["name"], e["x_q"], strict=True)} for e in epochs]
    both = by_name[0].keys() & by_name[1].keys()
    assert [len(images) for images in by_name] == [48, 32] and len(both) >= 30
    assert all((by_name[0][n] != by_name[1][n]).any() for n in both)


def test_too_few_images_for_a_batch_is_an_error(source):
    with pytest.raises(ValueError, match="at least one global batch.*50 images, batch 64"):
        take(source, BatchLayout(64), 1)


def encode(image, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def encoded_source(undecodable=()):
    images, _ = synthetic.shapes(20, seed=1)
    data = [b"not an image" if i in undecodable else encode(x) for i, x in enumerate(images)]
    return sources.from_bytes(data, [f"image-{i}" for i in range(20)])


@pytest.fixture(scope="module")
def clean():
    """Two batches of ten images in two groups, all of which can be decoded."""
    return take(encoded_source(), BatchLayout(10, group=5), 2, shuffle=False)


@pytest.fixture(scope="module")
def bad():
    """The same batches where three of the images cannot be decoded."""
    return take(encoded_source({4, 11, 17}), BatchLayout(10, group=5), 2, shuffle=False)


def names(batch):
    return [bytes(n).rstrip(b"\0").decode() for n in batch["name"]]


def test_a_bad_image_moves_no_other_sample_and_is_named(clean, bad):
    for g, b in zip(clean, bad, strict=True):
        assert names(g) == names(b)
        assert [n for n, ok in zip(names(b), b["ok"], strict=True) if not ok] == [
            n for n in names(g) if n in ("image-4", "image-11", "image-17")
        ]
        for x in ("x_q", "x_k"):
            np.testing.assert_array_equal(b[x][b["ok"]], g[x][b["ok"]])
    assert sum((~b["ok"]).sum() for b in bad) == 3


def test_a_bad_slot_shows_the_next_good_image_of_its_group_with_its_own_draws(bad):
    images, _ = synthetic.shapes(20, seed=1)
    for slot in range(20):
        batch, row = bad[slot // 10], slot % 10
        if batch["ok"][row]:
            continue
        following = [row // 5 * 5 + (row + i) % 5 for i in range(5)]  # in the group, cyclically
        donor = next(other for other in following if batch["ok"][other])
        image = images[int(names(batch)[donor].split("-")[1])]
        for view, x in enumerate(("x_q", "x_k")):
            draws = LIGHT.draw(7, slot, view)
            want = LIGHT.photometric(LIGHT.geometry(image, draws, SIZE)[None], draws[None])[0]
            np.testing.assert_allclose(batch[x][row], want, atol=1e-4)


def test_donors_are_cyclic_in_the_group_and_fall_back_to_the_batch():
    ok = tf.constant([1, 0, 0, 0, 0, 0, 1, 1, 0]) > 0
    #                 group 0  group 1  group 2
    np.testing.assert_array_equal(bad_images._donors(ok, 3), [0, 0, 0, 6, 6, 6, 6, 7, 6])


def test_storage_is_asked_three_times():
    """What can be read at last is no bad image. Each key here is how often reading it fails."""
    asked = collections.Counter()

    def read(key):
        asked[int(key)] += 1
        if asked[int(key)] <= int(key):
            raise OSError
        return float(key)

    def make_sample(key, slot):
        return {"x": tf.ensure_shape(tf.py_function(read, [key], tf.float32), [])}

    keys = tf.range(5, dtype=tf.int64)
    chunks = tf.data.Dataset.from_tensors({"slot": keys, "key": keys})
    (batch,) = bad_images.make_samples(chunks, make_sample, tf.strings.as_string)
    assert batch["ok"].numpy().tolist() == [True, True, True, False, False]
    assert batch["x"].numpy().tolist() == [0, 1, 2, 0, 0]
    assert batch["name"].numpy().tolist() == [b"0", b"1", b"2", b"3", b"4"]


def test_a_batch_without_any_good_image_stays_black():
    batch = take(encoded_source(range(20)), BatchLayout(10), 1)[0]
    assert not batch["ok"].any()
    black = (0 - np.array(LIGHT.mean)) / LIGHT.std
    for x in ("x_q", "x_k"):
        np.testing.assert_allclose(batch[x], black + np.zeros((10, SIZE, SIZE, 3)), atol=1e-5)


def test_the_dataset_graph_has_nothing_that_needs_python(source):
    data = two_view_dataset(source, moco.v2, BatchLayout(16, 1, 2, 4), image_size_px=SIZE)
    graph = str(_graph_of(data))
    assert "RandomUniform" in graph or "StatelessRandom" in graph
    for forbidden in ("PyFunc", "EagerPyFunc", "PyFuncStateless", "GeneratorDataset"):
        assert f'op: "{forbidden}"' not in graph
    for spec in data.element_spec.values():
        assert spec.shape.is_fully_defined() and spec.dtype != tf.string


def _graph_of(data):
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(data._as_serialized_graph().numpy())
    return graph
