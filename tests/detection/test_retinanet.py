"""RetinaNet: its losses and detections by hand, that it learns, replicas, its file, and a run."""

import json
import re

import keras
import numpy as np
import pytest
import shapes
import tensorflow as tf
from detection_runs import SHORT_RUN, make_config, metric_names, write_set
from small_resnet import four_stages

from moco_tf import distribute, optim
from moco_tf.backbones import heads
from moco_tf.backbones.encoder import Encoder
from moco_tf.detection.model import retinanet
from moco_tf.detection.model.detector import RCNNSettings
from moco_tf.evaluation.task import evaluate

R_CNN = ("masks", "width_divisor", "before_nms", "after_nms", "regions", "sampling_ratio")


def encoder(width=4):
    keras.utils.set_random_seed(0)
    return Encoder(four_stages(width))


def detector(network):
    """A `RetinaNetDetector` that is ready for a step."""
    settings = RCNNSettings(detections=20)
    model = retinanet.RetinaNetDetector(
        network, lambda x: tf.cast(x, tf.float32) / 64 - 2, settings
    )
    model.compile(optim.SGD(0.01, momentum=0.9, weight_decay=1e-4))
    model.optimizer.build(model.trainable_variables)
    return model


def batch(rows, side=64):
    examples = [shapes.draw(i, side) for i in range(1, 1 + rows)]
    arrays = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
    return arrays | {"step": np.zeros(rows, np.int64)}


def expected_losses(grid, logits, deltas, truth, label):
    """What `losses` must give, box by box; and how many anchors are of each sort.

    The box loss is plain L1: facebookresearch/detectron2, configs/Base-RetinaNet.yaml,
    MODEL.RETINANET.SMOOTH_L1_LOSS_BETA: 0.0.
    """
    focal = distance = 0.0
    sorts = dict.fromkeys(("positive", "negative", "between", "in a crowd"), 0)

    def common(a, b):
        wide, high = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
        return max(wide, 0) * max(high, 0)

    def area(a):
        return (a[2] - a[0]) * (a[3] - a[1])

    for n in range(len(truth)):
        things = [g for g in range(len(label[n])) if label[n, g] >= 0]
        crowds = [g for g in range(len(label[n])) if label[n, g] == -2]
        overlap = np.zeros((len(grid), len(label[n])))
        for a, g in np.ndindex(overlap.shape):
            if g in things:
                both = common(grid[a], truth[n, g])
                overlap[a, g] = both / (area(grid[a]) + area(truth[n, g]) - both)
        for a, box in enumerate(grid):
            best, target = overlap[a].max(), np.zeros(logits.shape[2])
            forced = any(overlap[a, g] == overlap[:, g].max() > 0 for g in things)
            if best >= 0.5 or forced:
                sorts["positive"] += 1
                g = overlap[a].argmax()
                target[label[n, g]] = 1
                size, new = box[2:] - box[:2], truth[n, g, 2:] - truth[n, g, :2]
                shift = ((truth[n, g, :2] + truth[n, g, 2:]) - (box[:2] + box[2:])) / 2 / size
                gap = np.abs(deltas[n, a] - np.concatenate([shift, np.log(new / size)]))
                distance += gap.sum()
            elif best >= 0.4:
                sorts["between"] += 1
                continue
            elif any(common(box, truth[n, g]) > 0.5 * area(box) for g in crowds):
                sorts["in a crowd"] += 1
                continue
            else:
                sorts["negative"] += 1
            p = 1 / (1 + np.exp(-logits[n, a]))
            positive, negative = 0.25 * (1 - p) ** 2 * np.log(p), 0.75 * p**2 * np.log(1 - p)
            focal -= np.where(target == 1, positive, negative).sum()
    count = max(sorts["positive"], 1)
    return (focal / count, distance / count), sorts


@pytest.fixture
def drawn():
    """Anchors, outputs for them, and instances of two images: float64 arrays, and labels."""
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(0, 40, (60, 2)), rng.uniform(8, 40, (60, 2))
    grid = np.concatenate([corner, corner + side], 1)
    truth = grid[rng.permutation(60)[:8]].reshape(2, 4, 4) + rng.uniform(-3, 3, (2, 4, 4))
    label = np.array([[2, 0, 2, -1], [1, -2, -1, -1]])
    truth[label == -1] = 0
    logits = rng.normal(-1, 2, (2, 60, 3))
    logits[:, ::5] = -30  # of a positive too, whose loss is 7.5
    deltas = rng.normal(0, 0.3, (2, 60, 4))
    return grid, logits, deltas, truth, label


def losses(grid, logits, deltas, truth, label):
    """The losses of arrays."""
    floats = (tf.constant(x, tf.float32) for x in (grid, logits, deltas, truth))
    return retinanet.losses(*floats, tf.constant(label, tf.int32))


def test_losses_are_those_of_numpy(drawn):
    *arrays, label = drawn
    for labels in (label, np.full_like(label, -1)):
        want, sorts = expected_losses(*arrays, labels)
        assert (min(sorts.values()) > 0) == (labels is label)
        np.testing.assert_allclose(losses(*arrays, labels), want, rtol=1e-4)


@pytest.mark.parametrize("without", [(), (1,), (0, 1)])
def test_replicas_divide_by_the_number_of_positives_of_all(drawn, without, mirrored):
    """The images `without` objects have no positives, on one replica or on both."""
    grid, *arrays, label = drawn
    label[list(without)] = -1

    def replica():
        row = distribute.local_rows(1)[0]
        rows = [tf.gather(tf.constant(x, tf.float32), [row]) for x in arrays]
        labels = tf.gather(tf.constant(label, tf.int32), [row])
        return retinanet.losses(tf.constant(grid, tf.float32), *rows, labels)

    strategy = mirrored(2)
    per_replica = tf.function(lambda: strategy.run(replica), autograph=False)()
    got = [np.mean(strategy.experimental_local_results(loss)) for loss in per_replica]
    np.testing.assert_allclose(got, losses(grid, *arrays, label), rtol=1e-5)


def test_detections_are_the_best_of_each_class():
    """Two levels; the second image is smaller than its padding."""
    grids = [[[0, 0, 20, 20], [1, 0, 21, 20]], [[30, 30, 70, 60]]]
    probabilities = [np.array([[0.9, 0.3], [0.8, 0.7]]), np.array([[0.04, 0.6]])]
    logits = [tf.constant([np.log(p / (1 - p))] * 2, tf.float32) for p in probabilities]
    deltas = [tf.zeros([2, 2, 4]), tf.constant([[[0.5, 0, 0, np.log(2)]]] * 2, tf.float32)]
    grids = [tf.constant(g, tf.float32) for g in grids]
    size = tf.constant([[100, 100], [50, 64]])
    detections = retinanet.detections(grids, logits, deltas, size, 4, 0.05)
    assert detections["label"].numpy().tolist() == [[0, 1, 1, -1]] * 2
    np.testing.assert_allclose(detections["score"], [[0.9, 0.7, 0.6, 0]] * 2, atol=1e-6)
    first, second = [0, 0, 20, 20], [1, 0, 21, 20]
    want = [[first, second, [50, 15, 90, 75], [0] * 4], [first, second, [50, 15, 64, 50], [0] * 4]]
    np.testing.assert_allclose(detections["boxes"], want, atol=1e-4)


def test_it_learns_a_batch_by_heart_and_is_the_same_after_reload(tmp_path):
    network = retinanet.make_retinanet(encoder(8), 3)
    model, examples = detector(network), batch(2)
    grids, logits, _ = network(model._normalize(examples["x"]))
    cells = (8 * 8, 4 * 4, 2 * 2, 1, 1)
    assert [len(grid) for grid in grids] == [9 * n for n in cells]
    middle, sides = (grids[2][:, :2] + grids[2][:, 2:]) / 2, grids[2][:, 2:] - grids[2][:, :2]
    middle = np.unique(np.round(middle, 3), axis=0)
    assert middle.tolist() == [[0, 0], [0, 32], [32, 0], [32, 32]]
    areas = np.unique(np.round(tf.reduce_prod(sides, 1)))
    np.testing.assert_allclose(areas, 128**2 * 4 ** (np.arange(3) / 3), rtol=1e-3)
    assert 0.003 < tf.reduce_mean(tf.sigmoid(tf.concat(logits, 1))) < 0.03  # the prior

    step = tf.function(model.step, autograph=False)
    first = step(examples)
    assert tuple(first) == model.NAMES
    for _ in range(30):
        last = step(examples)
    assert all(last[name] < 0.2 * first[name] for name in model.NAMES)
    detections = {k: v.numpy() for k, v in model.predict(examples["x"], examples["size"]).items()}
    assert shapes.average_precisions(examples, detections)["bbox"][1] > 0.5

    path = str(tmp_path / "network.keras")
    network.save(path)
    again = detector(keras.models.load_model(path, compile=False))
    assert again.network.num_classes == 3 and len(again.network.norms()) == 17
    for name, x in again.predict(examples["x"], examples["size"]).items():
        np.testing.assert_array_equal(x, detections[name])


def test_frozen_bn_is_constant_and_nowhere_new():
    network = retinanet.make_retinanet(encoder(), 3, frozen_bn=True)
    assert not network.norms()
    assert not any("gamma" in v.path for v in network.trainable_variables)


@pytest.mark.slow
def test_a_run_is_scored_reported_and_saved(tmp_path, mirrored):
    keras.utils.set_random_seed(0)
    Encoder(four_stages(4), heads.mlp(8)).save(tmp_path / "encoder.keras")
    data = (write_set(tmp_path / "set", 4, 0),) * 2
    options = {"architecture": "retinanet", "steps": 1, "optimizer__milestones_steps": ()}
    options |= {"lowest_score": 0.0, "bn_statistics_batches": 1, "data__check_images": False}
    config = make_config(data, **options, **usual())
    workdir = tmp_path / "run"
    record = evaluate(
        "detection", config, str(tmp_path / "encoder.keras"), str(workdir), mirrored(2)
    )
    assert record["metrics"].keys() == metric_names("box")
    assert record["protocol"].startswith("RetinaNet, end to end, 1 steps of 4 images")
    assert json.loads((workdir / "results.json").read_text()) == record
    saved = json.loads((workdir / "predictions.json").read_text())
    assert len(saved) == 4 * 10 and {p["category_id"] for p in saved} <= {3, 9}
    network = keras.models.load_model(workdir / "detector.keras", compile=False)
    assert network.num_classes == 2


def usual():
    """What only R-CNNs have, in place of what is in `SHORT_RUN`."""
    default = type(make_config(("a", "b")))()
    return {name: getattr(default, name) for name in R_CNN if name in SHORT_RUN}


@pytest.mark.parametrize("name, value", [("masks", True), ("keypoints", True), ("regions", 64)])
def test_what_only_r_cnns_have_is_refused(name, value):
    options = usual() | {"architecture": "retinanet"}
    assert make_config(("a", "b"), **options).architecture == "retinanet"
    message = f"`--config.{name}` must be left at {512 if name == 'regions' else False}"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_config(("a", "b"), **options | {name: value})
