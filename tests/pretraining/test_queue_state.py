"""The queue's diagnostics, which are computed where the queue is, against NumPy."""

import types

import numpy as np
import pytest
import tensorflow as tf

from moco_tf.contrastive import normalize, random_keys
from moco_tf.pretraining.diagnostics import Diagnostics

K, C, BATCH = 20, 6, 4


def state(step, symmetric=False):
    """State after so many steps, and the keys since the start, oldest first."""
    new = BATCH * (2 if symmetric else 1)
    rng = np.random.default_rng(step)
    queue = rng.normal(size=(K, C)).astype(np.float32)
    keys = rng.normal(size=(step * new, C)).astype(np.float32)
    for i, key in enumerate(keys):
        queue[i % K] = key
    model = types.SimpleNamespace(
        queue=tf.Variable(queue),
        queue_ptr=tf.Variable(np.int64(step * new % K)),
        queue_size=K,
        symmetric=symmetric,
    )
    diagnostics = Diagnostics.__new__(Diagnostics)
    diagnostics.model, diagnostics.layout = model, types.SimpleNamespace(batch=BATCH)
    return diagnostics.queue_state(step), keys[-K:], new


@pytest.mark.parametrize(("step", "symmetric"), [(1, False), (3, False), (5, False), (7, True)])
def test_the_state_of_the_queue_is_that_of_its_keys(step, symmetric):
    got, keys, new = state(step, symmetric)
    variance = np.linalg.eigvalsh(keys.T.astype(np.float64) @ keys / len(keys)).clip(1e-12)
    share = variance / variance.sum()
    want = {
        "queue_fill": len(keys) / K,
        "key_age": np.mean(np.arange(len(keys)) // new),
        "key_norm": np.mean(np.linalg.norm(keys, axis=1)),
        "key_mean_norm": np.linalg.norm(keys.mean(axis=0)),
        "key_effective_rank": np.exp(-np.sum(share * np.log(share))),
    }
    assert got.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, err_msg=name)


def test_a_new_queue_is_what_it_was_before_it_was_made_in_one_graph():
    eager = normalize(tf.random.stateless_normal([300, C], [7, 0]))
    np.testing.assert_array_equal(random_keys(7)((300, C), "float32"), eager)


def test_many_queues_in_one_script_warn_of_nothing(caplog):
    for seed in range(6):
        random_keys(seed)((4, C))
    assert not caplog.records
