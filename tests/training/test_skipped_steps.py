"""A step that is not finite changes nothing but its number, in everything that trains."""

import itertools

import keras
import numpy as np
import pytest
import shapes
import tensorflow as tf
from moco_case import SGD_ARGS, Case, distributed
from small_resnet import four_stages

from moco_tf import SGD, Encoder, MoCo, resnet
from moco_tf.detection.model.detector import Detector, RCNNSettings
from moco_tf.detection.model.network import make_network
from moco_tf.detection.model.retinanet import RetinaNetDetector, make_retinanet
from moco_tf.evaluation.classifier import Classifier
from moco_tf.mechanisms import EndToEnd, MemoryBank
from moco_tf.segmentation import networks
from moco_tf.segmentation.segmenter import Segmenter

CASE = Case(head="mlp", group_size=2)
ROWS = len(CASE.views()[0, 0])
INDEX = np.arange(ROWS, dtype=np.int64)
STRATEGIES = {
    "one": tf.distribute.get_strategy,
    "mirrored": lambda: tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),
}


@keras.saving.register_keras_serializable("tests")
class Explosive(keras.layers.Layer):
    """Passes its input on; the gradient of one element is infinite while `armed` is 1."""

    def build(self, input_shape):
        self.armed = self.add_weight(name="armed", shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        @tf.custom_gradient
        def pass_on(x):
            def gradient(upstream):
                infinite = tf.scatter_nd([[0, 0]], [float("inf")], tf.shape(x))
                return tf.where(self.armed > 0, infinite, upstream)

            return tf.identity(x), gradient

        return pass_on(x)


def nan_in_query(model, batch):
    batch["x_q"][-1, 3, 3, 0] = np.nan  # of the last row, on the last replica


def infinity_in_key(model, batch):
    batch["x_k"][0, 3, 3, 0] = np.inf


def infinite_gradient(model, batch):
    (layer,) = [x for x in model.encoder_q.layers if isinstance(x, Explosive)]
    layer.armed.assign(1.0)


def mechanism(cls, optimizer=None, **options):
    """A small compiled model of a mechanism, whose gradient can be made infinite."""
    encoder = CASE.encoder(CASE.group_size)
    encoder = keras.Model(encoder.input, Explosive()(encoder.output))
    return compiled(cls(encoder, temperature=0.2, **options), optimizer)


def compiled(model, optimizer=None):
    model.compile(optimizer or SGD(**SGD_ARGS))
    model.optimizer.build(model.trainable_variables)
    return model


def state(strategy, model):
    """All variables of a model and its optimizer, of each replica, by name; not the step."""
    optimizer = [v for v in model.optimizer.variables if not v.path.endswith("iteration")]
    variables = [v for v in model.variables if not v.path.endswith("armed")]
    return {
        f"{i} {v.path} on replica {replica}": value.numpy()
        for i, v in enumerate([*variables, *optimizer])
        for replica, value in enumerate(strategy.experimental_local_results(v.value))
    }


def assert_skipped(strategy, model, step, good, bad):
    """`good()` gives a batch that trains, `bad()` one that must not, each time a new one."""

    def train(batch):
        logs = step(distributed(strategy, batch))
        return [float(x) for x in strategy.experimental_local_results(logs["loss"])]

    def changed(before):
        after = state(strategy, model)
        assert after.keys() == before.keys()
        return [name for name in before if not np.array_equal(before[name], after[name])]

    start = state(strategy, model)
    assert np.isfinite(train(good())).all()
    before = state(strategy, model)
    assert changed(start)
    assert np.isnan(train(bad())).all()
    assert changed(before) == []
    assert model.optimizer.iterations.numpy() == 2
    return train, before, changed


MECHANISMS = {
    "MoCo": (MoCo, {"queue_size": 24, "momentum": 0.9}),
    "symmetric, accumulated": (
        MoCo,
        {"queue_size": 24, "momentum": 0.9, "symmetric": True, "gradient_accumulation": 2},
    ),
    "EndToEnd": (EndToEnd, {}),
    "MemoryBank": (MemoryBank, {"num_images": 11, "queue_size": 13}),
}
PLANTS = (nan_in_query, infinity_in_key, infinite_gradient)
QUICK = {
    "one": (
        ("MoCo", nan_in_query),
        ("symmetric, accumulated", infinite_gradient),
        ("EndToEnd", infinity_in_key),
        ("MemoryBank", nan_in_query),
    ),
    "mirrored": (("MoCo", infinite_gradient),),
}


def cases():
    """What can be planted into which mechanism on which devices; few of them are quick."""
    for devices, name, plant in itertools.product(STRATEGIES, MECHANISMS, PLANTS):
        if name == "MemoryBank" and plant is infinity_in_key:
            continue  # it has no key views
        if devices == "mirrored" and name == "symmetric, accumulated":
            continue  # too few rows for its groups
        marks = () if (name, plant) in QUICK[devices] else pytest.mark.slow
        yield pytest.param(devices, name, plant, marks=marks)


@pytest.mark.parametrize("devices, name, plant", cases())
def test_a_mechanism_skips_it(devices, name, plant):
    make, options = MECHANISMS[name]
    strategy = STRATEGIES[devices]()
    with strategy.scope():
        model = mechanism(make, **options)
    step = tf.function(lambda batch: strategy.run(model.step, (batch,)), autograph=False)

    def batch(number):
        x_q, x_k = CASE.views()[number]
        batch = {"x_q": x_q, "x_k": x_k}
        return batch | {"index": INDEX} if make is MemoryBank else batch

    def bad():
        planted = batch(1)
        plant(model, planted)
        return planted

    train, before, changed = assert_skipped(strategy, model, step, lambda: batch(0), bad)
    for layer in model.encoder_q.layers:
        if isinstance(layer, Explosive):
            layer.armed.assign(0.0)
    assert np.isfinite(train(batch(2))).all()  # and it goes on
    assert changed(before)


@pytest.mark.parametrize("devices", ["one", pytest.param("mirrored", marks=pytest.mark.slow)])
def test_any_optimizer_of_keras_skips_it(devices):
    strategy = STRATEGIES[devices]()
    with strategy.scope():
        model = mechanism(MoCo, keras.optimizers.AdamW(0.01, weight_decay=0.1), queue_size=24)
    step = tf.function(lambda batch: strategy.run(model.step, (batch,)), autograph=False)

    def bad():
        infinite_gradient(model, None)
        return tuple(CASE.views()[1])

    assert_skipped(strategy, model, step, lambda: tuple(CASE.views()[0]), bad)


@pytest.mark.parametrize("frozen", (pytest.param(True, marks=pytest.mark.slow), False))
def test_a_classifier_skips_it(frozen):
    strategy = STRATEGIES["mirrored"]()
    with strategy.scope():
        keras.utils.set_random_seed(0)
        backbone = resnet.ResNet("basic", (1,), width=4, stem="cifar")
        model = compiled(Classifier(backbone, 3, frozen))
    step = tf.function(lambda batch: strategy.run(model.step, (batch,)), autograph=False)

    def good():
        return {"x": CASE.views()[0, 0], "label": INDEX % 3}

    def bad():
        batch = good()
        batch["x"][-1, 3, 3, 0] = np.nan
        return batch

    assert_skipped(strategy, model, step, good, bad)


class Poisoned:
    """Prepares images for a network, as NaN while it is armed."""

    def __init__(self):
        self.armed = tf.Variable(False)

    def __call__(self, x):
        return tf.where(self.armed, float("nan"), tf.cast(x, tf.float32) / 64 - 2)


def segmenter(normalize):
    backbone = resnet.ResNet("basic", (1, 1, 1, 1), width=4, last_dilation=2, synchronized_bn=True)
    return Segmenter(networks.fcn(backbone, 3), normalize)


SMALL = RCNNSettings((50, 50), (20, 10), regions=8, detections=4, sampling_ratio=2)


def detector(normalize):
    network = make_network(Encoder(four_stages(4)), "c4", 3, masks=False)
    return Detector(network, normalize, SMALL)


def mask_detector(normalize):
    network = make_network(Encoder(four_stages(4)), "fpn", 3, masks=True, width_divisor=16)
    return Detector(network, normalize, SMALL)


def retinanet(normalize):
    encoder = Encoder(four_stages(4))
    return RetinaNetDetector(make_retinanet(encoder, 3), normalize, RCNNSettings(detections=4))


@pytest.mark.parametrize(
    "make",
    (
        segmenter,
        detector,
        pytest.param(mask_detector, marks=pytest.mark.slow),
        pytest.param(retinanet, marks=pytest.mark.slow),
    ),
)
def test_a_task_of_dense_prediction_skips_it(make):
    keras.utils.set_random_seed(0)
    normalize = Poisoned()
    model = compiled(make(normalize))
    step = tf.function(model.step, autograph=False)

    def good():
        normalize.armed.assign(False)
        batch = shapes.batch(0, 2)
        if make is segmenter:
            return {"x": batch["x"], "label": (batch["x"][..., 0] // 86).astype(np.int32)}
        return batch

    def bad():
        batch = good()
        normalize.armed.assign(True)
        return batch

    assert_skipped(STRATEGIES["one"](), model, step, good, bad)
