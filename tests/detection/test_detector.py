"""The whole detector: it learns, on any topology, compiled or not, and is saved."""

import keras
import numpy as np
import pytest
import shapes
import tensorflow as tf
from small_detectors import SETTINGS, make_detector
from small_resnet import four_stages

from moco_tf import optim
from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.backbones.encoder import Encoder
from moco_tf.detection.model import network as networks
from moco_tf.detection.model.detector import Detector, RCNNSettings, estimate_statistics

# One that is traced in a third of the others' time is quick. Tests of DensePose, RetinaNet and of
# serving have a pyramid.
each_architecture = pytest.mark.parametrize(
    "architecture",
    [pytest.param(n, marks=() if n == "c4" else pytest.mark.slow) for n in networks.ARCHITECTURES],
)


def predictions(model, batch, rows=10):
    """Of all images of a batch, as arrays."""
    predict = tf.function(model.predict, autograph=False)
    parts = [
        predict(batch["x"][i : i + rows], batch["size"][i : i + rows])
        for i in range(0, len(batch["x"]), rows)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.slow
def test_it_finds_shapes_it_has_not_seen():
    model = make_detector("fpn", width=16, rate=optim.Steps(0.1, [200, 235], 0.2, 20))
    step = tf.function(model.step, autograph=False)
    train, test = shapes.batch(0, 1000), shapes.batch(10_000, 50)
    untrained = shapes.average_precisions(test, predictions(model, test))
    assert np.max([*untrained.values()]) < 0.02
    rng = np.random.default_rng(0)
    for i in range(250):
        rows = rng.choice(1000, 8, replace=False)
        batch = {name: tf.constant(array[rows]) for name, array in train.items()}
        losses = step(batch | {"step": tf.fill([8], tf.constant(i, tf.int64))})
    assert tuple(losses) == model.NAMES
    detections = predictions(model, test)
    learnt = shapes.average_precisions(test, detections)
    assert learnt.keys() == {"bbox", "segm"}
    assert min(ap for ap, _ in learnt.values()) > 0.5  # the mean over IoU .5 to .95
    assert detections["mask"].shape == (50, 20, 28, 28) and detections["boxes"].max() <= 128
    empty = detections["label"] < 0
    assert empty.any()
    assert not detections["score"][empty].any() and not detections["boxes"][empty].any()


@each_architecture
def test_all_heads_learn_a_batch_by_heart(architecture):
    """At rates from which weights .1 % apart end alike: rounding differs from CPU to CPU."""
    rate, steps = {"fpn": (0.0015, 60), "c4": (0.01, 40), "dc5": (0.001, 120)}[architecture]
    model = make_detector(architecture, num_keypoints=0 if architecture == "c4" else 2, rate=rate)
    step = tf.function(model.step, autograph=False)
    batch = shapes.batch(0, 2)
    losses = [{name: float(loss) for name, loss in step(batch).items()} for _ in range(steps)]
    first = losses[0]
    # Which regions are drawn changes from step to step, and few of them see a keypoint.
    last = {name: np.mean([loss[name] for loss in losses[-steps // 4 :]]) for name in first}
    assert last["loss"] < 0.7 * first["loss"]
    assert last["mask"] < 0.95 * first["mask"]
    assert architecture == "c4" or last["keypoint"] < 0.5 * first["keypoint"]
    detections = predictions(model, batch)
    assert detections["mask"].shape == (2, 20, *[14 if architecture == "c4" else 28] * 2)
    assert architecture == "c4" or detections["keypoints"].shape == (2, 20, 2, 3)


@pytest.mark.slow
@pytest.mark.parametrize("architecture, num_keypoints", [("c4", 0), ("fpn", 2)])
def test_replicas_train_as_one_device_does(architecture, num_keypoints, mirrored):
    """At a rate that hardly moves the weights: else rounding changes the rank of a box, and with it
    what is drawn. Velocities are the sums of the gradients: rounding on the wrong side of a ReLU
    has cost 4 % of a norm; a replica left out would cost about half.
    """
    results = []
    for replicas in (1, 2):
        strategy = mirrored(replicas)
        with strategy.scope():
            model = make_detector(architecture, num_keypoints=num_keypoints, rate=1e-7)
        run = tf.function(lambda b, m=model, s=strategy: s.run(m.step, (b,)), autograph=False)
        losses, velocities = [], []
        for i in range(2):
            batch = shapes.batch(4 * i, 4, step=i)
            rows = 4 // replicas

            def rows_of(context, batch=batch, rows=rows):
                first = context.replica_id_in_sync_group * rows
                return {k: tf.constant(v[first : first + rows]) for k, v in batch.items()}

            losses_of_replicas = run(strategy.experimental_distribute_values_from_function(rows_of))
            per_replica = [
                strategy.experimental_local_results(losses_of_replicas[name])
                for name in model.NAMES
            ]
            losses.append(np.mean(per_replica, axis=1))
            velocities.append([v.numpy() for v in model.optimizer.velocities])
        results.append((losses, model.network.get_weights(), velocities))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-4)
    for alone, shared in zip(results[0][1], results[1][1]):
        np.testing.assert_allclose(alone, shared, atol=1e-4, rtol=1e-4)
    for velocities_alone, velocities_shared in zip(results[0][2], results[1][2], strict=True):
        for alone, shared in zip(velocities_alone, velocities_shared, strict=True):
            assert np.linalg.norm(alone - shared) <= 0.1 * np.linalg.norm(alone) + 1e-5


@pytest.mark.slow
def test_the_step_compiles():
    """Drawn numbers differ under XLA, so the losses agree only about."""
    batch = shapes.batch(0, 2)
    results = {}
    for way, static_shapes in (("crops", False), ("products", True), ("compiled", True)):
        model = make_detector("fpn", static_shapes=static_shapes, num_keypoints=2, width_divisor=32)
        step = tf.function(model.step, autograph=False, jit_compile=way == "compiled")
        results[way] = [float(loss) for loss in step(batch).values()]
    np.testing.assert_allclose(results["products"], results["crops"], rtol=1e-4)
    np.testing.assert_allclose(results["compiled"], results["crops"], rtol=0.05)


@each_architecture
def test_a_network_is_the_same_after_reload(architecture, tmp_path):
    model = make_detector(architecture, num_keypoints=0 if architecture == "c4" else 2)
    for v in model.network.variables:  # as if it were trained
        v.assign(v + tf.random.uniform(v.shape, 0, 0.01))
    path = str(tmp_path / "network.keras")
    model.network.save(path)
    again = Detector(keras.models.load_model(path, compile=False), model._normalize, SETTINGS)
    batch = shapes.batch(5, 2)
    want, got = predictions(model, batch), predictions(again, batch)
    assert got.keys() == want.keys() and again.network.num_classes == 3
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    # As it is served: the height and width of images are free.
    free = [tf.TensorSpec([2, None, None, 3], tf.uint8), tf.TensorSpec([2, 2], tf.int32)]
    served = tf.function(again.predict, free, autograph=False)(batch["x"], batch["size"])
    np.testing.assert_allclose(served["boxes"], want["boxes"], atol=1e-3)


def test_statistics_are_means_over_batches():
    model = make_detector("c4", masks=False)
    before = [v.numpy() for v in model.trainable_variables]
    batches = [shapes.batch(2 * i, 2, step=i) for i in range(3)]
    arrays = {name: np.stack([b[name] for b in batches]) for name in batches[0]}
    estimate_statistics(model, iter(tf.data.Dataset.from_tensor_slices(arrays)), 3)
    conv, bn = (model.network.features.get_layer(name) for name in ("conv1", "bn1"))
    first = keras.Model(model.network.features.input, conv.output)
    values = [first(model._normalize(b["x"])).numpy() for b in batches]
    np.testing.assert_allclose(bn.moving_mean, np.mean(values, axis=(0, 1, 2, 3)), atol=1e-4)
    want = np.mean([v.var(axis=(0, 1, 2), ddof=1) for v in values], axis=0)
    np.testing.assert_allclose(bn.moving_variance, want, rtol=1e-3)
    assert all(norm.momentum == 0.9 for norm in model.network.norms())
    for v, old in zip(model.trainable_variables, before):
        np.testing.assert_array_equal(v, old)


@each_architecture
def test_frozen_bn_is_constant_and_nowhere_new(architecture):
    model = make_detector(architecture, frozen_bn=True)
    parts = [model.network.features, model.network.region]
    norms = {
        layer.name: layer
        for part in parts
        if part
        for layer in part.layers
        if isinstance(layer, BatchNorm)
    }
    assert len(norms) == 12 and not model.network.norms()  # those of the backbone
    trained = {id(v) for v in model.trainable_variables}
    assert not any(id(v) in trained for norm in norms.values() for v in norm.variables)
    model.step(shapes.batch(0, 2))
    for norm in norms.values():
        np.testing.assert_array_equal(norm.moving_mean, 0)
        np.testing.assert_array_equal(norm.moving_variance, 1)


def test_the_region_head_is_the_backbones_last_stage():
    encoder = Encoder(four_stages())
    network = networks.make_network(encoder, "c4", 3)
    backbone = encoder.backbone
    for layer in [*network.features.layers, *network.region.layers]:
        if layer.weights and layer.name != "region.bn":
            for got, want in zip(layer.weights, backbone.get_layer(layer.name).weights):
                np.testing.assert_array_equal(got, want)
    assert network.region.layers[-1].name == "region.bn"
    reduced = networks.make_network(encoder, "dc5", 3, width_divisor=8)
    assert [layer.name for layer in reduced.features.layers[-2:]] == ["reduce", "reduce.bn"]
    assert reduced.features.outputs[0].shape[-1] == 64
    pyramid = networks.make_network(encoder, "fpn", 3, width_divisor=8)
    assert [len(n.norms()) for n in (network, reduced, pyramid)] == [13, 13, 20]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"architecture": "c5"}, "`architecture` must be one of c4, dc5, fpn. Received: 'c5'"),
        (
            {"architecture": "c4", "num_keypoints": 17},
            'Keypoint and DensePose heads need architecture="fpn" or "dc5"',
        ),
        (
            {"settings": RCNNSettings(regions=9999), "architecture": "c4"},
            "`regions` must be at most `after_nms`",
        ),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_detector(**options)
    small = Encoder(four_stages(4, "cifar"))
    with pytest.raises(ValueError, match="needs a backbone with ImageNet's stem"):
        networks.make_network(small, "fpn", 3)
