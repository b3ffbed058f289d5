"""What one step exchanges between replicas, read off its graph.

`MultiWorkerMirroredStrategy` over the logical CPUs of one process writes each exchange as a
collective op.
"""

import pytest
import tensorflow as tf
from collectives import count
from moco_case import DIM, QUEUE, ROWS, Case, distributed

from moco_tf import MoCo

REPLICAS = 2
N = ROWS // REPLICAS
VIEW = 8 * 8 * 3


@pytest.fixture(scope="module")
def strategy():
    devices = [f"CPU:{i}" for i in range(REPLICAS)]
    return tf.distribute.MultiWorkerMirroredStrategy._from_local_devices(devices)


def collectives(strategy, case, permuted_by="input", **kwargs):
    """Counts, per replica, the collectives of a step by (kind, type, bytes given by a replica)."""
    with strategy.scope():
        model = case.model(**kwargs)
    (x_q, x_k), (row, order) = case.views()[0], case.orders()[0]
    batch = (x_q, x_k)
    if permuted_by == "input":
        batch = {"x_q": x_q, "x_k": x_k, "row": row, "order": order}
    step = tf.function(lambda batch: strategy.run(model.step, (batch,)), autograph=False)
    graph = step.get_concrete_function(distributed(strategy, batch)).graph
    return count(graph, REPLICAS), model


def gradients(model):
    floats = sum(v.shape.num_elements() for v in model.encoder_q.trainable_variables)
    return "CollectiveReduceV2", "float32", 4 * floats


KEYS = "CollectiveGatherV2", "float32", 4 * N * DIM
ORDER = "CollectiveGatherV2", "int32", 4 * N
COUNTS = "CollectiveReduceV2", "float32", 4  # whether the step is finite on all replicas
QUEUE_MEAN = "CollectiveReduceV2", "float32", 4 * QUEUE * DIM
IMAGES = "CollectiveGatherV2", "float32", 4 * N * VIEW


def test_step_exchanges_gradients_keys_order_and_one_number_alone(strategy):
    counts, model = collectives(strategy, Case())
    assert counts == {gradients(model): 1, COUNTS: 1, KEYS: 1, ORDER: 1}


def test_step_that_permutes_exchanges_the_key_views_too(strategy):
    counts, model = collectives(strategy, Case(), permuted_by="step")
    assert counts == {gradients(model): 1, COUNTS: 1, KEYS: 1, ORDER: 1, IMAGES: 1}


def test_symmetric_step_exchanges_both_views_keys(strategy):
    counts, model = collectives(strategy, Case(symmetric=True))
    assert counts == {gradients(model): 1, COUNTS: 1, KEYS: 2, ORDER: 2}


def test_accumulated_step_exchanges_no_more(strategy):
    counts, model = collectives(strategy, Case(), gradient_accumulation=2)
    assert counts == {gradients(model): 1, COUNTS: 1, KEYS: 1, ORDER: 1}


def test_one_replica_exchanges_nothing():
    case = Case()
    model = case.model(shuffle=True)
    step = tf.function(model.step).get_concrete_function(tuple(map(tf.constant, case.views()[0])))
    assert not any("Collective" in op.type for op in step.graph.get_operations())


def test_count_shows_a_queue_averaged_over_replicas(strategy):
    """The counter sees what it is there to see."""

    class Averaging(MoCo):
        def add_weight(self, **kwargs):
            mean = {"aggregation": "mean"} if kwargs["name"] == "queue" else {}
            return super().add_weight(**kwargs | mean)

        def _dequeue_and_enqueue(self, keys, counts):
            self.queue.assign(self.queue + 1)

    counts, model = collectives(strategy, Case(), make=Averaging)
    assert counts == {gradients(model): 1, COUNTS: 1, KEYS: 1, ORDER: 1, QUEUE_MEAN: 1}
