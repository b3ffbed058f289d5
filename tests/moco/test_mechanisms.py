"""The other two mechanisms against oracles, on one replica and two, and in whole runs."""

import numpy as np
import pytest
import tensorflow as tf
import tiny
from moco_case import ROWS, SGD_ARGS, Case, assert_close, distributed
from oracle import Encoder, Oracle

from moco_tf import SGD, MoCo
from moco_tf.contrastive import statistics_of
from moco_tf.data import sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.recipes.recipe import IMAGENET, RandomResizedCrop, Recipe
from moco_tf.data.sources import Stream, synthetic
from moco_tf.data.tfdata import image_of_slot
from moco_tf.data.two_views import two_view_dataset
from moco_tf.mechanisms import EndToEnd, MemoryBank

IMAGES, NEGATIVES, SEED = 11, 30, 4
NO_STRATEGY = tf.distribute.get_strategy()
BANK = {"model__mechanism": "memory_bank", "model__shuffle": False}


def cross_entropy(logits, label):
    """-log softmax, and whether the label is among the best and the best five; means over rows."""
    best_first = np.argsort(-logits.numpy(), axis=1)
    hits = best_first == np.asarray(label)[:, None]
    loss = -tf.reduce_mean(tf.gather(tf.nn.log_softmax(logits), label, batch_dims=1))
    return loss, [hits[:, :n].any(axis=1).mean() for n in (1, 5)]


class EndToEndOracle(Oracle):
    """Each query against the keys of the whole batch, one softmax a row, one tape over all."""

    def step(self, views, orders):
        with tf.GradientTape() as tape:
            q = self._encode(self.encoder_q, views[0], np.arange(ROWS))
            k = tf.concat(self._encode(self.encoder_q, views[1], orders[1]), axis=0)
            k = tf.gather(k, np.argsort(orders[1]))
            rows = np.split(np.arange(ROWS), self.replicas)
            logs = [
                cross_entropy(tf.matmul(q, k, transpose_b=True) / self.temperature, i)
                for q, i in zip(q, rows)
            ]
            loss = sum(loss for loss, _ in logs) / self.replicas
        self._descend(tape.gradient(loss, self.encoder_q.parameters))
        return np.array([[float(loss), *tops] for loss, tops in logs]).T


class BankOracle(Oracle):
    """Query by query against its own entry and the drawn entries of other images."""

    def step(self, x, index, drawn):
        bank = self.queue.copy()
        with tf.GradientTape() as tape:
            q = self._encode(self.encoder_q, x, np.arange(ROWS))
            logs = []
            for q_of_replica, own in zip(q, np.split(index, self.replicas)):
                losses, tops = [], []
                for query, i in zip(q_of_replica, own):
                    keys = bank[[i, *drawn[drawn != i]]]
                    logits = tf.linalg.matvec(keys, query)[None] / self.temperature
                    loss, top = cross_entropy(logits, [0])
                    losses.append(loss)
                    tops.append(top)
                logs.append((sum(losses) / len(losses), np.mean(tops, axis=0)))
            loss = sum(loss for loss, _ in logs) / self.replicas
        self._descend(tape.gradient(loss, self.encoder_q.parameters))
        for i, query in reversed(list(zip(index, np.concatenate(q)))):  # the first row counts
            entry = 0.5 * bank[i] + 0.5 * query
            self.queue[i] = entry / np.linalg.norm(entry)
        return np.array([[float(loss), *tops] for loss, tops in logs]).T


def oracle(kind, case, bank=None):
    encoder = Encoder(case.encoder(), case.group_size)
    sgd = tuple(SGD_ARGS.values())
    return kind(encoder, None, bank, case.replicas, 0.0, case.temperature, False, sgd)


def make(kind, case, strategy, **kwargs):
    with strategy.scope():
        model = kind(
            case.encoder(case.group_size), temperature=case.temperature, seed=SEED, **kwargs
        )
        model.compile(SGD(**SGD_ARGS))
        model.optimizer.build(model.trainable_variables)
    return model


def run(model, strategy, batches):
    """Logs, steps x 3 x replicas."""
    step = tf.function(lambda batch: strategy.run(model.step, (batch,)), autograph=False)
    results = [step(distributed(strategy, batch)) for batch in batches]
    names = "loss", "top1", "top5"
    return np.array([[strategy.experimental_local_results(r[n]) for n in names] for r in results])


def assert_same_encoder(model, oracle):
    variables = [*oracle.encoder_q.parameters, *oracle.encoder_q.statistics]
    ours = [*model.encoder_q.trainable_variables, *model.encoder_q.non_trainable_variables]
    assert_close(
        {f"{i} {v.path}": v.numpy() for i, v in enumerate(ours)},
        {f"{i} {v.path}": w.numpy() for i, (v, w) in enumerate(zip(ours, variables))},
    )


@pytest.fixture(params=(1, pytest.param(2, marks=pytest.mark.slow), "2 workers"))
def strategy(request, mirrored):
    if isinstance(request.param, int):
        return mirrored(request.param)
    devices = ["CPU:0", "CPU:1"]
    return tf.distribute.MultiWorkerMirroredStrategy._from_local_devices(devices)


@pytest.mark.parametrize(
    "strategy, permuted_by",
    [
        (1, "input"),
        (2, "step"),
        pytest.param(1, "step", marks=pytest.mark.slow),
        pytest.param(2, "input", marks=pytest.mark.slow),
        pytest.param("2 workers", "step", marks=pytest.mark.slow),
        pytest.param("2 workers", "input", marks=pytest.mark.slow),
    ],
    indirect=["strategy"],
)
def test_end_to_end_equals_oracle(strategy, permuted_by, monkeypatch):
    case = Case(replicas=strategy.num_replicas_in_sync, group_size=2)
    model, twin = make(EndToEnd, case, strategy), oracle(EndToEndOracle, case)
    views, orders = case.views(), case.orders()
    monkeypatch.setattr(
        "moco_tf.distribute.permutation", lambda n, seed: tf.gather(orders[:, 1], seed[1])
    )
    batches = [tuple(pair) for pair in views]
    if permuted_by == "input":
        batches = [
            {"x_q": x_q, "x_k": x_k[o], "row": np.arange(ROWS, dtype=np.int32), "order": o}
            for (x_q, x_k), (_, o) in zip(views, orders)
        ]
    logs = run(model, strategy, batches)
    expected = [twin.step(*step) for step in zip(views, orders)]
    np.testing.assert_allclose(logs, expected, atol=1e-5)
    assert_same_encoder(model, twin)


def drawn(step):
    key = [SEED, step + 1]
    return tf.random.stateless_uniform([NEGATIVES], key, 0, IMAGES, tf.int64, alg="philox").numpy()


def test_memory_bank_equals_oracle(strategy):
    case = Case(replicas=strategy.num_replicas_in_sync, group_size=2)
    model = make(MemoryBank, case, strategy, num_images=IMAGES, queue_size=NEGATIVES)
    start = model.bank.numpy()
    np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1, atol=1e-6)
    twin = oracle(BankOracle, case, start.copy())
    rng = np.random.default_rng(5)
    index = np.array([rng.permutation(IMAGES)[:ROWS] for _ in range(case.steps)])
    index[2, 6] = index[2, 1]  # as where an image stands in for a bad one
    x = case.views()[:, 0]
    logs = run(model, strategy, [{"x_q": a, "index": b} for a, b in zip(x, index)])
    expected = [twin.step(*step, drawn(i)) for i, step in enumerate(zip(x, index))]
    np.testing.assert_allclose(logs, expected, atol=1e-5)
    assert_same_encoder(model, twin)
    for replica in strategy.experimental_local_results(model.bank.value):
        np.testing.assert_allclose(replica.numpy(), twin.queue, atol=1e-6)
    unseen = np.setdiff1d(np.arange(IMAGES), index)
    np.testing.assert_array_equal(model.bank.numpy()[unseen], start[unseen])


def test_each_step_and_seed_draws_other_negatives():
    draws = [drawn(0), drawn(1)]
    assert (draws[0] != draws[1]).any() and {*draws[0]} <= set(range(IMAGES))
    model = make(MemoryBank, Case(), NO_STRATEGY, num_images=IMAGES, queue_size=NEGATIVES)
    np.testing.assert_array_equal(model._draw(), draws[0])
    model.optimizer.iterations.assign(1)
    np.testing.assert_array_equal(model._draw(), draws[1])


def test_a_memory_bank_says_what_its_batches_must_have():
    model = make(MemoryBank, Case(), NO_STRATEGY, num_images=IMAGES)
    with pytest.raises(ValueError, match="needs x_q and index.*with_index=True"):
        model.step(tuple(Case().views()[0]))


@pytest.mark.parametrize("kind, size", ((EndToEnd, {}), (MemoryBank, {"num_images": IMAGES})))
def test_they_are_made_again_from_their_config(kind, size):
    model = make(kind, Case(), NO_STRATEGY, **size)
    again = kind.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert not hasattr(again, "queue") and not hasattr(again, "encoder_k")
    assert len(again.weights) == len(model.encoder_q.weights) + len(size)


def dataset(source, layout, **kwargs):
    crops = Recipe(RandomResizedCrop((0.2, 1.0)), (), **IMAGENET)
    return two_view_dataset(source, crops, layout, image_size_px=16, jit_compile=False, **kwargs)


def batches(source, layout, count, **kwargs):
    return list(dataset(source, layout, **kwargs).take(count).as_numpy_iterator())


def numbered(bad=()):
    """Encoded images whose names are their numbers."""
    images, _ = synthetic.shapes(20, seed=1)
    data = [b"bad" if i in bad else tf.io.encode_png(x).numpy() for i, x in enumerate(images)]
    return sources.from_bytes(data, [str(i) for i in range(20)])


def names(batch):
    return np.array([int(bytes(n).rstrip(b"\0")) for n in batch["name"]])


def test_the_index_is_the_images_number_and_comes_only_if_asked_for():
    layout = BatchLayout(10, replicas=2, group=5)
    for batch in batches(numbered(), layout, 3, with_index=True):
        assert batch["index"].dtype == np.int64
        np.testing.assert_array_equal(batch["index"], names(batch))
    assert "index" not in dataset(numbered(), layout).element_spec


def test_a_replaced_image_has_the_index_of_the_one_that_stands_in():
    layout = BatchLayout(10, group=5)
    numbers = image_of_slot(tf.range(10, dtype=tf.int64), 10, 20, seed=0).numpy()
    (batch,) = batches(numbered(bad=numbers[[3, 9]]), layout, 1, with_index=True)
    np.testing.assert_array_equal(names(batch), numbers)
    numbers[[3, 9]] = numbers[[4, 5]]  # the next good one of each group
    np.testing.assert_array_equal(batch["index"], numbers)


def test_a_stream_has_no_index(tmp_path, monkeypatch):
    stream = Stream(100, (("x", 0, -1),), None)
    with pytest.raises(ValueError, match="random access.*Received: streamed records"):
        batches(stream, BatchLayout(10), 1, with_index=True)
    monkeypatch.setattr(sources, "open_source", lambda *_, **__: stream)
    with pytest.raises(ValueError, match="random access"):
        tiny.pretrain(tmp_path / "run", **BANK)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_resumes_with_its_bank(tmp_path):
    for workdir, stops in (("whole", [3]), ("halves", [2, 3])):
        for stop in stops:
            tiny.pretrain(tmp_path / workdir, **BANK, stop_after_steps=stop)
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "halves")
    (bank,) = [v for n, v in tiny.saved(tmp_path / "whole").items() if n.startswith("model/bank/")]
    assert bank.shape == (4096, 8)


def test_an_end_to_end_run_tells_of_shuffling_but_not_of_a_queue(tmp_path):
    tiny.pretrain(tmp_path, model__mechanism="end_to_end", stop_after_steps=2)
    line = tiny.metrics(tmp_path)[-1]
    assert "positives_in_group" in line and 0 < line["loss"] < 2 * np.log(16)
    assert not {"queue_fill", "key_age", "momentum", "key_effective_rank"} & line.keys()


@pytest.mark.parametrize(
    "make, options",
    [
        (MoCo, {"symmetric": True, "queue_size": 24}),
        (EndToEnd, {}),
        (MemoryBank, {"num_images": IMAGES, "queue_size": NEGATIVES}),
    ],
)
def test_losses_and_weights_do_not_depend_on_bn_statistics(make, options):
    """So that replicas may take over those of the first one at any time."""
    case = Case(head="mlp", group_size=2, steps=2)

    def train(disturbed):
        model = make(case.encoder(case.group_size), **options)
        model.compile(SGD(**SGD_ARGS))
        model.optimizer.build(model.trainable_variables)
        losses = []
        for x_q, x_k in case.views():
            for variable in statistics_of(model.encoder_q) if disturbed else ():
                variable.assign(tf.random.uniform(variable.shape, 1, 9))
            index = np.arange(ROWS, dtype=np.int64)
            losses.append(float(model.step({"x_q": x_q, "x_k": x_k, "index": index})["loss"]))
        statistics = {id(v) for v in statistics_of(model.encoder_q)}
        rest = [v.numpy() for v in model.variables if id(v) not in statistics]
        return losses, rest, [v.numpy() for v in statistics_of(model.encoder_q)]

    losses, rest, statistics = train(disturbed=False)
    other_losses, other_rest, other_statistics = train(disturbed=True)
    assert losses == other_losses
    for a, b in zip(rest, other_rest, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(statistics[0], other_statistics[0])
