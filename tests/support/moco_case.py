"""Runs the same training as `MoCo.step` and as the oracle, and compares what is left."""

import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf
from oracle import Encoder, Oracle

import moco_tf
from moco_tf import SGD, MoCo, distribute, heads, resnet
from moco_tf.contrastive import random_keys

ROWS, DIM, QUEUE = 8, 5, 21
SGD_ARGS = {"learning_rate": 0.03, "momentum": 0.9, "weight_decay": 1e-3}
HEADS = {"linear": heads.linear, "mlp": heads.mlp}


@dataclasses.dataclass(frozen=True)
class Case:
    """What the result depends on; how the model gets there is up to `train`."""

    replicas: int = 1
    head: str = "linear"
    temperature: float = 0.07
    symmetric: bool = False
    group_size: int | None = None
    depths: tuple = (1,)
    side_px: int = 8
    steps: int = 3  # the queue wraps around in the third, or before
    permute_queries: bool = False
    permute_keys: bool = True

    def encoder(self, group_size=None):
        keras.utils.set_random_seed(1)
        backbone = resnet.ResNet(
            "basic", self.depths, width=4, stem="cifar", bn_group_size=group_size
        )
        return moco_tf.Encoder(backbone, HEADS[self.head](DIM))

    def model(self, make=MoCo, **kwargs):
        model = make(
            self.encoder(self.group_size),
            queue_size=QUEUE,
            momentum=0.9,
            temperature=self.temperature,
            symmetric=self.symmetric,
            **kwargs,
        )
        model.compile(SGD(**SGD_ARGS))
        model.optimizer.build(model.trainable_variables)
        return model

    def views(self):
        """Query and key views of all steps: float32 steps x 2 x ROWS x side x side x 3."""
        shape = self.steps, 2, ROWS, self.side_px, self.side_px, 3
        return np.random.default_rng(2).normal(size=shape).astype(np.float32)

    def orders(self):
        """Which rows lie where: int32 steps x 2 x ROWS."""
        orders = np.tile(np.arange(ROWS, dtype=np.int32), (self.steps, 2, 1))
        permute = np.array([self.permute_queries, self.permute_keys])
        rng = np.random.default_rng(3)
        return np.where(permute[:, None], rng.permuted(orders, axis=2), orders)


def state(encoder_q, encoder_k, queue, pointer):
    """All that a step changes, by name, as arrays: statistics are those of replica 0."""
    result = {"queue": queue, "queue_ptr": pointer}
    for name, encoder in (("query", encoder_q), ("key", encoder_k)):
        for v in encoder.weights:
            result[f"{name} {v.path}"] = v.numpy()
    return {name: np.array(value) for name, value in result.items()}


def model_state(model):
    return state(model.encoder_q, model.encoder_k, model.queue.numpy(), model.queue_ptr.numpy())


@functools.cache
def expected(case):
    """The oracle's `(state, logs)`; logs: steps x 3 x replicas."""
    queries, keys = case.encoder(), case.encoder()
    oracle = Oracle(
        Encoder(queries, case.group_size),
        Encoder(keys, case.group_size),
        queue=random_keys(0)((QUEUE, DIM)).numpy(),
        replicas=case.replicas,
        momentum=0.9,
        temperature=case.temperature,
        symmetric=case.symmetric,
        sgd=tuple(SGD_ARGS.values()),
    )
    logs = [oracle.step(*step) for step in zip(case.views(), case.orders())]
    return state(queries, keys, oracle.queue, oracle.pointer), np.stack(logs)


def distributed(strategy, batch):
    """Splits the rows of each array of a batch over the replicas."""

    def rows(context):
        i, n = context.replica_id_in_sync_group, context.num_replicas_in_sync
        return tf.nest.map_structure(lambda x: tf.constant(np.split(x, n)[i]), batch)

    return strategy.experimental_distribute_values_from_function(rows)


def inject(orders, monkeypatch):
    """Makes steps permute the key views by these orders; the seed ends with the step's number."""
    monkeypatch.setattr(distribute, "permutation", lambda n, seed: tf.gather(orders[:, 1], seed[1]))


def train(case, strategy, model, monkeypatch, permuted_by):
    """Trains and returns logs, steps x 3 x replicas.

    Args:
        permuted_by: "input" to give `step` permuted views with their rows and order, "step" to
            give it plain pairs, whose key views it permutes itself by the case's orders.
    """
    orders = case.orders()
    inject(orders, monkeypatch)
    step = tf.function(lambda batch: strategy.run(model.step, (batch,)), autograph=False)
    logs = []
    for (x_q, x_k), (row, order) in zip(case.views(), orders):
        batch = (x_q, x_k)
        if permuted_by == "input":
            batch = {"x_q": x_q[row], "x_k": x_k[order], "row": row, "order": order}
        results = step(distributed(strategy, batch))
        values = [strategy.experimental_local_results(results[k]) for k in ("loss", "top1", "top5")]
        logs.append(np.array(values))
    return np.stack(logs)


def assert_replicas_are_identical(strategy, model):
    """Each replica's copy of what is trained is that of the first, bit for bit."""
    variables = [model.queue, model.queue_ptr, *model.optimizer.variables]
    variables += model.encoder_q.trainable_variables + model.encoder_k.trainable_variables
    for variable in variables:
        first, *others = strategy.experimental_local_results(variable.value)
        assert len(others) == strategy.num_replicas_in_sync - 1
        for other in others:
            np.testing.assert_array_equal(first.numpy(), other.numpy(), variable.path)


def compare(case, strategy, monkeypatch, permuted_by="input", make=MoCo, **kwargs):
    """Raises an AssertionError unless a `MoCo` ends where the oracle does."""
    with strategy.scope():
        model = case.model(make, **kwargs)
    logs = train(case, strategy, model, monkeypatch, permuted_by)
    assert_replicas_are_identical(strategy, model)
    expected_state, expected_logs = expected(case)
    np.testing.assert_allclose(logs, expected_logs, rtol=0, atol=1e-5, err_msg="loss, top1, top5")
    assert_close(model_state(model), expected_state)


def assert_close(actual, desired, atol=1e-6):
    assert actual.keys() == desired.keys()
    for name in desired:
        np.testing.assert_allclose(actual[name], desired[name], rtol=0, atol=atol, err_msg=name)
