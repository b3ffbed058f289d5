"""`MoCo.step` against the oracle, over several steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from moco_case import QUEUE, ROWS, Case, compare, expected, train

from moco_tf import SGD, MoCo, distribute

V2 = {"head": "mlp", "temperature": 0.2}
CASES = {
    "v1": Case(group_size=2, depths=(1, 1)),
    "v1, 4 replicas": Case(replicas=4),
    "v1, 2 replicas of 2 groups": Case(replicas=2, group_size=2),
    "v2, symmetric": Case(**V2, symmetric=True, group_size=2),
    "v2, symmetric, 4 replicas": Case(**V2, symmetric=True, replicas=4),
}
NO_STRATEGY = tf.distribute.get_strategy()


def some_slow(*names):
    """All cases, these in the slow tier."""
    marks = {name: pytest.mark.slow for name in names}
    return [pytest.param(name, marks=marks.get(name, ())) for name in CASES]


@pytest.mark.parametrize("name", some_slow("v1, 4 replicas", "v2, symmetric, 4 replicas"))
def test_step_equals_oracle(name, mirrored, monkeypatch):
    case = CASES[name]
    compare(case, mirrored(case.replicas), monkeypatch)


@pytest.mark.parametrize(
    "name", some_slow("v1", "v1, 4 replicas", "v2, symmetric", "v2, symmetric, 4 replicas")
)
def test_step_that_permutes_equals_oracle(name, mirrored, monkeypatch):
    case = CASES[name]
    compare(case, mirrored(case.replicas), monkeypatch, permuted_by="step")


@pytest.mark.slow
def test_step_equals_oracle_on_a_whole_resnet(monkeypatch):
    case = Case(**V2, depths=(1, 1, 1, 1), side_px=16, group_size=4, steps=2)
    compare(case, NO_STRATEGY, monkeypatch)


def test_step_equals_oracle_without_shuffling(monkeypatch):
    case = Case(group_size=2, permute_keys=False)
    compare(case, NO_STRATEGY, monkeypatch, "step", shuffle=False)


def test_permutations_are_new_at_each_step_and_seed():
    draws = [distribute.permutation(16, [seed, step]).numpy() for seed in (0, 1) for step in (0, 1)]
    for draw in draws:
        np.testing.assert_array_equal(np.sort(draw), np.arange(16))
    assert len({tuple(draw) for draw in draws}) == 4
    np.testing.assert_array_equal(draws[1], tf.function(distribute.permutation)(16, [0, 1]))


def test_queries_may_come_in_any_order(mirrored, monkeypatch):
    case = Case(replicas=2, symmetric=True, permute_queries=True, steps=2)
    compare(case, mirrored(2), monkeypatch)


@pytest.mark.parametrize(
    "name, micro_batches",
    [
        ("v2, symmetric", 2),
        *(pytest.param(*given, marks=pytest.mark.slow) for given in (("v1", 2), ("v1", 4))),
        pytest.param("v2, symmetric", 4, marks=pytest.mark.slow),
    ],
)
def test_accumulated_step_equals_one_large_step(name, micro_batches, monkeypatch):
    compare(CASES[name], NO_STRATEGY, monkeypatch, gradient_accumulation=micro_batches)


@pytest.mark.slow
def test_accumulated_step_equals_one_large_step_on_two_replicas(mirrored, monkeypatch):
    case = CASES["v1, 2 replicas of 2 groups"]
    compare(case, mirrored(2), monkeypatch, "step", gradient_accumulation=2)


def test_micro_batches_are_bn_groups_by_default(monkeypatch):
    def make(encoder, **kwargs):
        return MoCo(CASES["v1"].encoder(group_size=None), gradient_accumulation=4, **kwargs)

    compare(CASES["v1"], NO_STRATEGY, monkeypatch, make=make)


@pytest.fixture
def clean_variable_scope():
    """`tf.foldl` leaves TensorFlow's variable scope altered when its function raises."""
    yield
    tf.function(lambda: tf.compat.v1.get_variable_scope().set_caching_device(None))()


def test_micro_batch_must_be_whole_bn_groups(monkeypatch, clean_variable_scope):
    case = Case(group_size=4)
    with pytest.raises(ValueError, match=r"multiple of `group_size`.*2 rows, group_size=4"):
        train(case, NO_STRATEGY, case.model(gradient_accumulation=4), monkeypatch, "input")


def test_strategy_scopes_work_after_an_error_in_a_micro_batch(monkeypatch, clean_variable_scope):
    case = Case(group_size=4)
    with pytest.raises(ValueError):
        train(case, NO_STRATEGY, case.model(gradient_accumulation=4), monkeypatch, "input")
    seen = []
    tf.function(lambda: seen.append(tf.compat.v1.get_variable_scope().caching_device))()
    assert seen == [None]  # else the next `strategy.scope()` raises NotImplementedError


def test_micro_batches_must_divide_the_rows(monkeypatch):
    case = Case()
    text = "must divide the rows on a replica.*rows=8, gradient_accumulation=3"
    with pytest.raises(ValueError, match=text):
        train(case, NO_STRATEGY, case.model(gradient_accumulation=3), monkeypatch, "input")


def test_queue_takes_the_keys_and_wraps_around():
    model, queue = Case().model(shuffle=False), None
    queue = model.queue.numpy()
    for step, views in enumerate(Case(steps=4).views()):
        model.step(tuple(views))
        # The key encoder is still as it was when it made the keys.
        keys = tf.math.l2_normalize(model.encoder_k(views[1], training=True), axis=1)
        rows = (step * ROWS + np.arange(ROWS)) % QUEUE
        kept = np.setdiff1d(np.arange(QUEUE), rows)
        after = model.queue.numpy()
        np.testing.assert_array_equal(after[kept], queue[kept])
        np.testing.assert_allclose(after[rows], keys, rtol=0, atol=1e-6)
        assert model.queue_ptr.numpy() == (step + 1) * ROWS % QUEUE
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-6)
        queue = after


def test_queue_starts_with_random_unit_rows_by_seed():
    queue, again, other = (Case().model(seed=seed).queue.numpy() for seed in (1, 1, 2))
    np.testing.assert_allclose(np.linalg.norm(queue, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(queue, again)
    assert np.abs(queue - other).max() > 0.1


@pytest.mark.parametrize("symmetric, needed", ((False, ROWS), (True, 2 * ROWS)))
def test_queue_must_hold_the_keys_of_a_step(symmetric, needed):
    def model(queue_size):
        model = MoCo(Case().encoder(), queue_size=queue_size, symmetric=symmetric)
        model.compile(SGD())
        return model

    views = tuple(Case(steps=1).views()[0])
    text = rf"`queue_size` must be at least.*queue_size={needed - 1}, new_keys={needed}"
    with pytest.raises(ValueError, match=text):
        model(needed - 1).step(views)
    model(needed).step(views)


@pytest.mark.parametrize(
    "wrong",
    ({"queue_size": 0}, {"momentum": 1.1}, {"temperature": 0}, {"gradient_accumulation": 0}),
    ids=lambda wrong: next(iter(wrong)),
)
def test_wrong_argument_is_named(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=rf"`{name}` must be .*Received: {name}={value}"):
        MoCo(Case().encoder(), **wrong)


def test_compiled_by_xla_gives_the_same_loss(monkeypatch):
    case = Case(group_size=2, steps=1)
    model = case.model(gradient_accumulation=2, shuffle=False)
    step = tf.function(model.step, jit_compile=True, autograph=False)
    x_q, x_k = case.views()[0]
    order = case.orders()[0, 1]
    logs = step({"x_q": tf.constant(x_q), "x_k": tf.constant(x_k[order]), "order": order})
    state, expected_logs = expected(case)
    np.testing.assert_allclose(logs["loss"], expected_logs[0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(model.queue.numpy(), state["queue"], atol=1e-4)


@pytest.fixture
def bfloat16():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    yield
    keras.mixed_precision.set_global_policy("float32")


def test_mixed_bfloat16_keeps_keys_and_loss_in_float32(bfloat16, monkeypatch):
    case = Case(head="mlp", steps=3)
    model = case.model()
    logs = train(case, NO_STRATEGY, model, monkeypatch, "step")
    assert logs.dtype == np.float32
    assert np.isfinite(logs).all()
    embeddings = model(tf.zeros([2, 8, 8, 3]))
    assert model.encoder_q.get_layer("resnet").compute_dtype == "bfloat16"
    assert embeddings.dtype == model.queue.value.dtype == tf.float32
    assert {v.dtype for v in model.weights} == {"float32", "int64"}  # queue_ptr is int64
    np.testing.assert_allclose(np.linalg.norm(model.queue.numpy(), axis=1), 1, atol=1e-6)
