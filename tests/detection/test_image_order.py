"""Which images a step trains on: repeated ones of rare classes, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from detection_sets import FILL, annotation, write_coco

from moco_tf.data import bad_images
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.detection.data import image_order, pipeline
from moco_tf.detection.data.annotations import open_annotations

LYING, UPRIGHT = (20, 30), (30, 20)
SIZES = np.array([LYING, UPRIGHT, LYING, LYING, UPRIGHT, LYING, UPRIGHT, LYING], np.int32)
FACTORS = np.array([1.0, 1.0, 1.3, 2.0, 2.5, 1.0, 1.0, 3.25])


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    """Class 7 is in all images, 8 in two of them, 9 in one of these, there three times."""
    classes = [7] * 8 + [8, 8] + [9] * 3
    images = [*range(1, 9), 2, 5] + [5] * 3
    records = [annotation(i, (2, 2, 12, 12), c) for i, c in zip(images, classes)]
    categories = [{"id": i, "name": f"c{i}"} for i in (7, 8, 9)]
    folder = tmp_path_factory.mktemp("set") / "set"
    return open_annotations(write_coco(folder, SIZES.tolist(), records, categories), training=True)


def seen(factors, batch, steps, seed=0):
    """The images of the steps: steps x batch."""
    images = tf.function(image_order.image_order(SIZES, factors, batch, seed), autograph=False)
    return np.array([images(tf.constant(step, tf.int64)).numpy() for step in steps])


def test_an_image_is_repeated_for_its_rarest_class(annotations):
    want = np.ones(8)
    want[1] = np.sqrt(0.5 / (2 / 8))
    want[4] = np.sqrt(0.5 / (1 / 8))
    np.testing.assert_allclose(image_order.repeat_factors(annotations, 0.5), want)
    want[4] = np.sqrt(0.2 / (1 / 8))
    want[1] = 1  # two of eight are more than a fifth
    np.testing.assert_allclose(image_order.repeat_factors(annotations, 0.2), want)
    assert (image_order.repeat_factors(annotations, 0.0) == 1).all()


def test_an_epoch_has_each_image_as_often_as_its_factor_says():
    # The factors of the lying images have the sum 8.55, those of the others 4.5.
    want = FACTORS * np.where(SIZES[:, 0] > SIZES[:, 1], 5 / 4.5, 9 / 8.55)
    images = seen(FACTORS, 1, range(14 * 300)).reshape(300, 14)  # epochs
    counts = np.array([np.bincount(epoch, minlength=8) for epoch in images])
    assert (counts >= np.floor(want)).all() and (counts <= np.ceil(want)).all()
    np.testing.assert_allclose(counts.mean(axis=0), want, atol=0.1)
    assert len({tuple(epoch) for epoch in counts}) > 5 and (np.ptp(counts[:, 4]) == 1)
    # Repeats are drawn for each epoch by itself.
    apart = counts[:-1, 4] - want[4], counts[1:, 4] - want[4]
    assert abs(np.mean(apart[0] * apart[1])) < 0.05


def test_batches_are_of_one_kind_and_a_function_of_seed_and_step():
    steps = list(range(40))
    whole = seen(FACTORS, 2, steps)
    upright = (SIZES[whole, 0] > SIZES[whole, 1]).sum(axis=1)
    assert set(upright) == {0, 2} and (upright[:14] == 2).sum() == 5
    np.testing.assert_array_equal(whole[17:], seen(FACTORS, 2, steps[17:]))
    assert (whole != seen(FACTORS, 2, steps, seed=1)).any()
    late = seen(FACTORS, 2, [10**9, 10**12])
    assert (late >= 0).all() and (late < 8).all()


def test_without_repeats_the_order_is_that_of_permutations():
    """The numbers are those of version 0.1, whose runs go on in the same order."""
    images = seen(np.ones(8), 2, range(8))
    want = np.reshape([1, 4, 0, 5, 6, 4, 7, 3, 2, 3, 1, 6, 0, 2, 7, 5], (8, 2))
    assert images.tolist() == want.tolist()
    assert sorted(images.ravel().tolist()) == sorted([*range(8)] * 2)


def test_the_dataset_repeats(annotations):
    options = {"fill": FILL, "short_px": (20,), "max_objects": 4, "repeat_threshold": 0.5}

    def names(steps, host=0, hosts=1, start=0, **more):
        layout = BatchLayout(2, hosts, hosts)
        data = pipeline.detection_dataset(
            annotations, layout, host=host, start_step=start, **options, **more
        )
        batches = data.take(steps).as_numpy_iterator()
        return [bad_images.decode_names(batch["name"]) for batch in batches]

    whole = names(60)
    images = np.array([int(name[-7:-4]) for batch in whole for name in batch])
    counts = np.bincount(images, minlength=9)[1:]
    # An epoch of the three upright images has five slots: 1.41 + 2 + 1, brought to a whole sum.
    assert counts[4] == pytest.approx(2 * counts[6], abs=4) and counts[4] > 1.5 * counts[0]
    assert names(10, start=50) == whole[50:]
    hosts = [names(60, host=h, hosts=2) for h in range(2)]
    assert [a + b for a, b in zip(*hosts)] == whole
