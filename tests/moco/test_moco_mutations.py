"""The comparison with the oracle notices each of these mistakes."""

import keras
import pytest
import tensorflow as tf
from moco_case import SGD_ARGS, Case, compare

from moco_tf import SGD, MoCo, distribute

NO_STRATEGY = tf.distribute.get_strategy()


class EnqueueBeforeLogits(MoCo):
    def _contrast(self, x, row, keys):
        super()._dequeue_and_enqueue(keys, True)
        return super()._contrast(x, row, keys)

    def _dequeue_and_enqueue(self, keys, counts):
        pass


class AverageStatistics(MoCo):
    def _momentum_update_key_encoder(self):
        super()._momentum_update_key_encoder()
        m = self.momentum
        pairs = zip(self.encoder_k.non_trainable_variables, self.encoder_q.non_trainable_variables)
        for v_k, v_q in pairs:
            v_k.assign(m * v_k + (1 - m) * v_q)


class MomentumUpdateLast(MoCo):
    def _momentum_update_key_encoder(self):
        pass

    def _dequeue_and_enqueue(self, keys, counts):
        super()._dequeue_and_enqueue(keys, counts)
        super()._momentum_update_key_encoder()


class PositivesInKeyOrder(MoCo):
    def _keys(self, x, order):
        return super()._keys(x, distribute.local_rows(x.shape[0]))


class KeysInInferenceMode(MoCo):
    def _keys(self, x, order):
        self.encoder_k.trainable = False
        return super()._keys(x, order)


class StandStillPointer(MoCo):
    def _dequeue_and_enqueue(self, keys, counts):
        super()._dequeue_and_enqueue(keys, counts)
        self.queue_ptr.assign(0)


class FirstViewLast(MoCo):
    def _dequeue_and_enqueue(self, keys, counts):
        super()._dequeue_and_enqueue(tf.concat(tf.split(keys, 2)[::-1], axis=0), counts)


class WeightsDecayAlone(SGD):
    """No decay for biases and BN."""

    def build(self, variables):
        super().build(variables)
        self.l2_of = [self.l2 if v.shape.rank > 1 else 0.0 for v in variables]


class SummedGradients(MoCo):
    def step(self, batch):
        apply = self.optimizer.apply
        n = distribute.num_replicas()
        self.optimizer.apply = lambda gradients, v: apply([n * g for g in gradients], v)
        return super().step(batch)


def with_optimizer(make_optimizer):
    class Mutant(MoCo):
        def compile(self, optimizer):
            super().compile(make_optimizer(**SGD_ARGS))

    return Mutant


GROUPS = Case(group_size=2)
SYMMETRIC = Case(group_size=2, steps=2, symmetric=True)
MUTANTS = {
    "queue before logits": (GROUPS, EnqueueBeforeLogits),
    "statistics averaged": (GROUPS, AverageStatistics),
    "momentum update last": (GROUPS, MomentumUpdateLast),
    "positives in key order": (GROUPS, PositivesInKeyOrder),
    "keys in inference mode": (GROUPS, KeysInInferenceMode),
    "pointer stands still": (GROUPS, StandStillPointer),
    "second view enqueued first": (SYMMETRIC, FirstViewLast),
    "no decay of biases and BN": (GROUPS, with_optimizer(WeightsDecayAlone)),
    "Keras' SGD": (GROUPS, with_optimizer(keras.optimizers.SGD)),
}


QUICK = ("queue before logits", "second view enqueued first", "no decay of biases and BN")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MUTANTS]
)
def test_comparison_notices(name, monkeypatch):
    case, mutant = MUTANTS[name]
    with pytest.raises(AssertionError, match="tolerance"):
        compare(case, NO_STRATEGY, monkeypatch, make=mutant)


@pytest.mark.slow
def test_comparison_notices_that_shuffling_is_off(monkeypatch):
    compare(GROUPS, NO_STRATEGY, monkeypatch, "step")
    with pytest.raises(AssertionError, match="tolerance"):
        compare(GROUPS, NO_STRATEGY, monkeypatch, "step", shuffle=False)


@pytest.mark.slow
def test_comparison_notices_summed_gradients(mirrored, monkeypatch):
    case = Case(replicas=2, steps=2)
    with pytest.raises(AssertionError, match="tolerance"):
        compare(case, mirrored(2), monkeypatch, make=SummedGradients)


@pytest.mark.parametrize(
    "name, change",
    (("momentum", 0.91), pytest.param("temperature", 0.0701, marks=pytest.mark.slow)),
)
def test_comparison_notices_another_value_of(name, change, monkeypatch):
    def make(encoder, **kwargs):
        return MoCo(encoder, **kwargs | {name: change})

    with pytest.raises(AssertionError, match="tolerance"):
        compare(GROUPS, NO_STRATEGY, monkeypatch, make=make)


@pytest.mark.slow
def test_comparison_accepts_the_right_model(monkeypatch):
    """Else the tests above would mean nothing."""
    compare(GROUPS, NO_STRATEGY, monkeypatch)
    compare(SYMMETRIC, NO_STRATEGY, monkeypatch)
