"""The same run on every topology: losses and queue equal one device with the same permutations."""

import evaluations
import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf import addresses
from moco_tf.backbones import resnet
from moco_tf.data import recipes, sources
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.data.two_views import two_view_dataset
from moco_tf.evaluation.classification import Classification
from moco_tf.pretraining import build

STEPS = 4


def simulate(config, layout):
    """One device does what the replicas of `layout` do: losses and queue."""
    source = sources.open_source(config.data.source)
    recipe = addresses.resolve(recipes, config.data.recipe, "data.recipe")
    model = build.make_model(config, steps_per_epoch=source.num_examples // config.batch_size)
    hosts = [
        two_view_dataset(
            source, recipe, layout, host=h, image_size_px=config.data.image_size_px
        ).as_numpy_iterator()
        for h in range(layout.hosts)
    ]
    step = tf.function(model.step, autograph=False)
    losses = []
    for _ in range(STEPS):
        parts = [next(host) for host in hosts]
        batch = {k: np.concatenate([p[k] for p in parts]) for k in parts[0] if k[0] in "xor"}
        batch = {k: tf.constant(v) for k, v in batch.items() if k != "ok"}
        losses.append(float(step(batch)["loss"]))
    return np.array(losses), model.queue.numpy()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone")
    tiny.pretrain(workdir)
    return workdir


def assert_same_run(workdir, losses, queue):
    np.testing.assert_allclose(tiny.losses(workdir), losses, atol=1e-5)
    np.testing.assert_allclose(tiny.queue(workdir), queue, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [2, 4])
def test_mirrored_equals_one_device(replicas, alone, tmp_path):
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    tiny.pretrain(tmp_path, strategy)
    assert_same_run(tmp_path, tiny.losses(alone), tiny.queue(alone))


@pytest.mark.slow
def test_several_steps_per_call_equal_single_ones(alone, tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    tiny.pretrain(tmp_path, strategy, steps_per_call=2)
    assert_same_run(tmp_path, tiny.losses(alone), tiny.queue(alone))


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_augmenting_on_the_device_trains_the_same(replicas, mirrored, alone, tmp_path):
    tiny.pretrain(tmp_path, mirrored(replicas), data__augment_on="device")
    np.testing.assert_allclose(tiny.losses(tmp_path), tiny.losses(alone), atol=1e-3)


@pytest.mark.slow
def test_accumulation_equals_the_large_batch(alone, tmp_path):
    tiny.pretrain(tmp_path, gradient_accumulation=4)
    assert_same_run(tmp_path, tiny.losses(alone), tiny.queue(alone))


@pytest.mark.slow
def test_two_workers_of_two_replicas_permute_in_the_input_pipeline(tmp_path):
    args = tiny.command(tmp_path, "--strategy=multiworker", cpus=2)
    tiny.run_workers(2, lambda _: args)
    layout = BatchLayout(16, hosts=2, replicas=2, group=4)  # one device takes both hosts' rows
    assert layout.shuffling == "input"
    assert_same_run(tmp_path, *simulate(tiny.config(), layout))


@pytest.mark.slow
def test_two_workers_of_one_replica_shuffle_by_a_gather_in_the_step(tmp_path):
    args = tiny.command(tmp_path, "--strategy=multiworker", model__bn_group_size=8)
    tiny.run_workers(2, lambda _: args)
    layout = BatchLayout(16, hosts=2, replicas=2, group=8)
    assert layout.shuffling == "step"
    assert_same_run(tmp_path, *simulate(tiny.config(model__bn_group_size=8), layout))


def test_a_batch_that_does_not_divide_says_what_would(tmp_path):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1", "CPU:2"])
    with pytest.raises(ValueError, match="multiple of 12: 3 replicas.*Use 12 or 24"):
        tiny.pretrain(tmp_path, strategy)


def test_xla_for_the_step_is_refused_on_several_replicas(mirrored, tmp_path):
    with pytest.raises(ValueError, match="must be false on several GPUs.*with 2 replicas"):
        tiny.pretrain(tmp_path, mirrored(2), jit_compile=True)


@pytest.mark.slow
def test_the_score_in_the_log_is_that_of_the_file_and_of_a_resumed_run(
    mirrored, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        build, "make_backbone", lambda model: resnet.ResNet("basic", (1,), width=16)
    )
    folder = tiny.shapes_folder(tmp_path / "data")
    fields = {
        "data__source": f"folder:{folder}/train",
        "monitor__source": "auto",
        "monitor__every_steps": 2,
        "monitor__neighbours": 5,
        "optimizer__learning_rate": 0.1,  # so that the replicas' statistics differ
    }
    for name, ends in (("whole", [4]), ("stopped", [3, 4])):
        for end in ends:
            tiny.pretrain(tmp_path / name, mirrored(2), stop_after_steps=end, **fields)
    whole, stopped = (
        {line["step"]: line["knn"] for line in tiny.metrics(tmp_path / name) if "knn" in line}
        for name in ("whole", "stopped")
    )
    assert whole.keys() == {0, 2, 4} and stopped | whole == stopped
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "stopped")
    monkeypatch.setattr(Classification, "report", lambda task, record: None)  # for speed
    options = {"neighbours": (5,), "temperature": 0.1}
    record = evaluations.evaluate("knn", tmp_path / "whole", tmp_path / "knn", **options)
    assert record["metrics"]["top1"]["value"] == whole[4]
