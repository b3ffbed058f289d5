"""DensePose's annotations, flips, losses and head, against NumPy and SciPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from densepose_sets import CATEGORIES, law, person, write_files, write_persons
from detection_sets import annotation, write_coco
from numpy_boxes import float32
from scipy import ndimage
from small_detectors import SETTINGS, make_detector

from moco_tf.data.batch_layout import BatchLayout
from moco_tf.detection.data import densepose, densepose_surface, pipeline
from moco_tf.detection.data.annotations import open_annotations
from moco_tf.detection.model import densepose_head, keypoint_head
from moco_tf.detection.model.detector import Detector
from moco_tf.detection.model.roi_align import roi_align

OPTIONS = {"fill": (10, 20, 30), "short_px": (64,), "longest_px": 120, "max_objects": 3}


@pytest.fixture(scope="module")
def persons(tmp_path_factory):
    """Six images with two drawn persons each."""
    address = write_persons(tmp_path_factory.mktemp("persons") / "set", 6)
    return open_annotations(address, training=True, densepose=True)


@pytest.fixture(scope="module")
def symmetry(tmp_path_factory):
    return densepose_surface.load(str(write_files(tmp_path_factory.mktemp("mesh"))))[0]


def test_points_and_masks_are_those_of_the_file(tmp_path):
    beyond = person(1, (-10, 10, 30, 50))
    records = [person(1, (10, 20, 42, 52)), annotation(1, (0, 0, 9, 9), 1), beyond]
    records.append(annotation(2, (0, 0, 9, 9), 1))
    address = write_coco(tmp_path / "set", [(64, 64), (64, 64)], records, CATEGORIES)
    annotations = open_annotations(address, training=True, densepose=True)
    assert annotations.num_examples == 1  # an image without any is left out
    assert len(annotations.boxes) == 3
    points = densepose.points_of(annotations.densepose_points[0])
    want = [records[0][name] for name in ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V")]
    want = np.array(want).T * [32 / 256, 32 / 256, 1, 1, 1] + [10, 20, 0, 0, 0]
    np.testing.assert_allclose(points, want, rtol=1e-6)
    assert annotations.densepose_points[1] == annotations.densepose_masks[1] == b""
    unpacked = densepose.unpacked(
        annotations.densepose_points, annotations.densepose_masks, (2.0, 3.0)
    )
    got, masks = (unpacked[name].numpy() for name in ("densepose_points", "densepose_masks"))
    np.testing.assert_allclose(got[0, :20], want * [2, 3, 1, 1, 1], rtol=1e-6)
    assert got.shape == (3, 196, 5) and not got[0, 20:].any() and not got[1].any()
    assert masks.shape == (3, 112, 112) and not masks[1].any()
    assert (masks[0, :, :56] == 2).all() and (masks[0, :, 56:] == 3).all()
    # Of the third a quarter is outside the image: its middle is at a third of the rest.
    edge = (20 - 10) / 30 * 112
    assert (masks[2, :, : int(edge)] == 2).all() and (masks[2, :, int(edge) + 1 :] == 3).all()
    test = open_annotations(address, training=False, densepose=True)
    assert test.num_examples == 2 and test.densepose_masks is None
    plain = open_annotations(address, training=True)
    assert plain.densepose_points is None and plain.num_examples == 2


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dp_U": [0.5]}, "must be of one length, at most 196"),
        ({"dp_I": [25.0] * 20}, "dp_I must be whole numbers, 1 to 24"),
        ({"dp_V": [1.5] * 20}, "dp_U and dp_V from 0 to 1"),
        ({"dp_masks": [[]] * 13}, "dp_masks must be 14"),
        ({"dp_masks": [{"size": [9, 9], "counts": ""}, *[[]] * 13]}, "of 256 x 256 px or empty"),
    ],
)
def test_annotations_that_cannot_be_are_named(change, message, tmp_path):
    record = person(1, (10, 20, 42, 52)) | change
    address = write_coco(tmp_path / "set", [(64, 64)], [record], CATEGORIES)
    with pytest.raises(ValueError, match=f"annotation 1: .*{message}"):
        open_annotations(address, training=True, densepose=True)


def test_sets_without_it_are_refused(tmp_path):
    address = write_coco(tmp_path / "set", [(64, 64)], [annotation(1, (0, 0, 9, 9))])
    with pytest.raises(ValueError, match="no DensePose annotations .*have dp_masks, dp_x"):
        open_annotations(address, training=False, densepose=True)
    with pytest.raises(ValueError, match="LVIS has neither keypoints nor DensePose"):
        open_annotations(address.replace("coco:", "lvis:"), training=True, densepose=True)


def test_sides_are_those_of_the_body():
    # Source: DensePoseTransformData of detectron2's DensePose.
    pairs = [*itertools.chain(*((p + 1, p) for p in range(3, 24, 2)))]
    assert (0, 1, 2, *pairs) == densepose.MIRRORED_PARTS
    assert densepose.MIRRORED_LABELS == (0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 14)


@pytest.mark.parametrize("flips", [True, False])
def test_flipped_persons_are_persons(persons, symmetry, flips):
    """The law of drawn persons holds for their mirror images, and only with the other's part."""
    data = pipeline.detection_dataset(
        persons, BatchLayout(2), **OPTIONS, symmetry=symmetry if flips else None
    )
    flipped = []
    for batch in data.take(6).as_numpy_iterator():
        for i in range(2):
            x1, y1, x2, y2 = batch["boxes"][i, 0]
            blue = batch["x"][i, int((y1 + y2) / 2), :, 2]
            flipped.append(blue[int(0.75 * x1 + 0.25 * x2)] > blue[int(0.25 * x1 + 0.75 * x2)])
            for row in np.flatnonzero(batch["densepose_points"][i, :, 0, 2]):
                box, points = batch["boxes"][i, row], batch["densepose_points"][i, row]
                known, rest = points[points[:, 2] > 0], points[points[:, 2] == 0]
                assert len(known) == 20 and not rest.any()
                place = (known[:, :2] - box[:2]) / (box[2:] - box[:2])
                part, _, u, v = law(*place.T)
                np.testing.assert_array_equal(known[:, 2], part)
                np.testing.assert_allclose(known[:, 3:], np.stack([u, v], 1), atol=0.005)
                mask = batch["densepose_masks"][i, row]
                assert (mask[:, :56] == 2).all() and (mask[:, 56:] == 3).all()
    assert 0.2 < np.mean(flipped) < 0.8 if flips else not np.any(flipped)


def random_case(seed=0, n=2, b=3, size=8):
    """Arguments of the losses; the last region is apart from its person."""
    rng = np.random.default_rng(seed)
    truth = np.tile(np.array([10, 20, 50, 70.0]), (n, b, 1)) + rng.uniform(-2, 2, (n, b, 4))
    boxes = truth + rng.uniform(-3, 3, (n, b, 4))
    boxes[:, -1] += 25
    points = np.zeros((n, b, 6, 5))
    points[..., :4, :2] = truth[..., None, :2] + rng.uniform(0, 1, (n, b, 4, 2)) * [40, 50]
    points[..., 0, :2] = truth[..., :2] + 0.3  # outside of regions that begin within
    points[..., :4, 2] = rng.integers(1, 25, (n, b, 4))
    points[..., :4, 3:] = rng.uniform(0, 1, (n, b, 4, 2))
    masks = rng.integers(0, 15, (n, b, 112, 112)).astype(np.uint8)
    maps = rng.normal(0, 2, (n, b, size, size, 90))
    positive = np.array([[True] * b, [False, *[True] * (b - 1)]])[:n]
    return maps, points, masks, truth, boxes, positive


def numpy_losses(maps, points, masks, truth, boxes, positive):
    def entropy(logits, label):
        return np.log(np.exp(logits).sum()) - logits[label]

    size, of_masks, of_parts, of_uv = maps.shape[2], [], [], np.zeros(2)
    for i in np.ndindex(positive.shape):
        corner, side = boxes[i][:2], boxes[i][2:] - boxes[i][:2]
        (x1, y1), (x2, y2) = np.maximum(corner, truth[i][:2]), np.minimum(boxes[i], truth[i])[2:]
        common = max(x2 - x1, 0) * max(y2 - y1, 0)
        union = side.prod() + (truth[i][2:] - truth[i][:2]).prod() - common
        if not positive[i] or common / union <= 0.7:
            continue
        entropies = []
        for row, column in np.ndindex(size, size):
            x, y = corner + (np.array([column, row]) + 0.5) / size * side
            x, y = ((x, y) - truth[i][:2]) / (truth[i][2:] - truth[i][:2]) * 112
            inside = 0 <= x < 112 and 0 <= y < 112
            entropies.append(
                entropy(maps[i][row, column, :15], masks[i][int(y), int(x)] if inside else 0)
            )
        of_masks.append(np.mean(entropies))
        for x, y, part, u, v in points[i]:
            x, y = ((x, y) - corner) / side * size
            if part and 0 <= x < size and 0 <= y < size:
                at = [[y - 0.5], [x - 0.5]]
                values = [
                    ndimage.map_coordinates(m, at, order=1, mode="nearest")[0]
                    for m in np.moveaxis(maps[i], -1, 0)
                ]
                part = int(part)
                of_parts.append(entropy(np.array(values[15:40]), part))
                far = np.abs([values[40 + part] - u, values[65 + part] - v])
                of_uv += np.where(far < 1, far**2 / 2, far - 0.5)
    assert len(of_masks) == 3 and 0 < len(of_parts) < 12
    return [2 * np.mean(of_masks), 0.3 * np.mean(of_parts), *(0.1 * of_uv * 2 / len(maps))]


def test_the_losses_are_numpys():
    case = random_case()
    arguments = [float32(x) if x.dtype == float else tf.constant(x) for x in case]
    losses = densepose_head.losses(*arguments)
    assert tuple(losses) == densepose_head.NAMES
    np.testing.assert_allclose([*losses.values()], numpy_losses(*case), rtol=1e-5)
    empty = [*arguments[:5], tf.zeros_like(arguments[5])]
    assert not any(float(loss) for loss in densepose_head.losses(*empty).values())


def test_replicas_have_the_losses_of_one_device(mirrored):
    case = [np.float32(x) if x.dtype == float else x for x in random_case()]
    want = densepose_head.losses(*map(tf.constant, case))
    strategy = mirrored(2)

    def own(context):
        row = context.replica_id_in_sync_group
        return [tf.constant(x[row : row + 1]) for x in case]

    values = strategy.experimental_distribute_values_from_function(own)
    run = tf.function(lambda v: strategy.run(densepose_head.losses, v), autograph=False)
    for name, loss in run(values).items():
        parts = strategy.experimental_local_results(loss)
        np.testing.assert_allclose(np.mean(parts), want[name], rtol=1e-5, err_msg=name)


def test_what_cells_show():
    maps = np.random.default_rng(0).normal(0.5, 0.4, (1, 2, 4, 4, 90))
    surface = densepose_head.decode(float32(maps)).numpy()
    assert surface.shape == (1, 2, 4, 4, 3) and 0 < np.mean(surface[..., 0] == 0) < 0.5
    for i in np.ndindex(1, 2, 4, 4):
        part = maps[i][15:40].argmax() if maps[i][:15].argmax() else 0
        want = [part, maps[i][40 + part], maps[i][65 + part]] if part else [0, 0, 0]
        np.testing.assert_allclose(surface[i], [want[0], *np.clip(want[1:], 0, 1)], atol=1e-6)


def test_the_head_learns_persons(persons):
    """From maps of an image: regions of drawn persons, a little off their boxes."""
    batch = next(iter(pipeline.detection_dataset(persons, BatchLayout(2), **OPTIONS)))
    rng = np.random.default_rng(0)
    truth, points, masks = (
        tf.repeat(batch[name][:, :1], 2, axis=1)
        for name in ("boxes", "densepose_points", "densepose_masks")
    )
    boxes = truth + float32(rng.uniform(-1.5, 1.5, truth.shape))
    images = tf.cast(batch["x"], tf.float32) / 64 - 2
    regions = tf.reshape(roi_align(images, boxes, 14, 2), [-1, 14, 14, 3])
    head = keypoint_head.keypoint_head((14, 14, 3), densepose_head.MAPS, 32, "densepose")
    optimizer, positive = keras.optimizers.Adam(0.01), tf.ones([2, 2], bool)

    def step():
        with tf.GradientTape() as tape:
            maps = tf.reshape(head(regions), [2, 2, 56, 56, densepose_head.MAPS])
            losses = densepose_head.losses(maps, points, masks, truth, boxes, positive)
            loss = tf.add_n([*losses.values()])
        optimizer.apply(tape.gradient(loss, head.trainable_variables), head.trainable_variables)
        return losses, densepose_head.decode(maps)

    first, _ = step()
    for _ in range(18):
        last, surface = step()
    for name in densepose_head.NAMES:
        assert float(last[name]) < 0.8 * float(first[name]), name
    assert np.mean(np.isin(surface[..., 0], (3, 4))) > 0.5


def test_a_detector_trains_predicts_and_is_the_same_after_reload(persons, tmp_path):
    batch = next(iter(pipeline.detection_dataset(persons, BatchLayout(2), **OPTIONS)))
    model = make_detector("fpn", masks=False, densepose=True, width_divisor=32)
    assert model.network.densepose.output_shape == (None, 56, 56, 90)
    before = model.network.densepose.get_weights()
    losses = model.step(batch)
    assert tuple(losses) == model.NAMES and model.NAMES[-4:] == densepose_head.NAMES
    assert all(float(losses[name]) > 0 for name in densepose_head.NAMES)
    total = sum(float(losses[name]) for name in model.NAMES[1:])
    np.testing.assert_allclose(losses["loss"], total, rtol=1e-5)
    after = model.network.densepose.get_weights()
    assert all((new != old).any() for new, old in zip(after, before, strict=True))
    detections = model.predict(batch["x"], batch["size"])
    assert detections["densepose"].shape == (2, 20, 56, 56, 3)
    path = str(tmp_path / "network.keras")
    model.network.save(path)
    again = Detector(keras.models.load_model(path, compile=False), model._normalize, SETTINGS)
    for name, value in again.predict(batch["x"], batch["size"]).items():
        np.testing.assert_array_equal(value, detections[name])


def test_regions_of_c4_are_too_small():
    with pytest.raises(ValueError, match="Keypoint and DensePose heads need.*densepose=True"):
        make_detector("c4", densepose=True)
