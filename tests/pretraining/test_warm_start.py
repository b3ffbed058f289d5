"""A new run starts from another run's state, or from an encoder (`--init`)."""

import logging
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf import encoders, presets, warm_start
from moco_tf.commands import export, train
from moco_tf.pretraining import build, initial, run


def model_of(**overrides):
    return build.make_model(tiny.config(**overrides))


def queries(workdir):
    """The run's query encoder, as it wrote it."""
    return keras.models.load_model(workdir / "encoder.keras")


def key_arrays(workdir):
    """The arrays of the run's key encoder, as its checkpoint has them."""
    return [v for name, v in tiny.saved(workdir).items() if name.startswith("model/encoder_k/")]


def assert_same_arrays(model, expected):
    """The weights of a model are the given arrays, in any order."""
    got = sorted((w.numpy() for w in model.weights), key=lambda a: (a.shape, a.tobytes()))
    want = sorted(expected, key=lambda a: (a.shape, a.tobytes()))
    assert len(got) == len(want) > 0
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size, kept", [(40, 40), (64, 40), (24, 24)])
def test_a_run_starts_from_another_ones_encoders_and_newest_keys(pretrained, size, kept):
    model = model_of(model__queue_size=size, model__bn_group_size=8, epochs=9)
    random = model.queue.numpy()
    facts = warm_start.load(str(pretrained), model)
    assert facts["taken"] == ["query encoder", "key encoder", f"{kept} keys of the queue"]
    assert_same_arrays(model.encoder_q, queries(pretrained).get_weights())
    assert_same_arrays(model.encoder_k, key_arrays(pretrained))
    # The old run has done 4 steps of 16 keys: its oldest of 40 is at row 64 % 40.
    oldest_first = np.roll(tiny.queue(pretrained), -24, axis=0)
    np.testing.assert_array_equal(model.queue[:kept], oldest_first[-kept:])
    np.testing.assert_array_equal(model.queue[kept:], random[kept:])
    assert int(model.queue_ptr) == kept % size
    assert int(model.optimizer.iterations) == 0  # the schedule is the new run's


def test_an_encoder_alone_starts_both_encoders_and_leaves_the_queue(pretrained):
    model = model_of()
    random = model.queue.numpy()
    facts = warm_start.load(str(pretrained / "encoder.keras"), model)
    assert facts["taken"] == ["query encoder"]
    assert_same_arrays(model.encoder_q, queries(pretrained).get_weights())
    assert_same_arrays(model.encoder_k, queries(pretrained).get_weights())
    np.testing.assert_array_equal(model.queue, random)


def test_with_another_head_the_backbone_alone_is_taken(pretrained, caplog):
    model = model_of(model__dim=12)
    head = [w.numpy() for w in model.encoder_q.head.weights]
    facts = warm_start.load(str(pretrained), model)
    assert facts["taken"] == ["backbone of the query encoder"]
    assert "starts with a new head" in caplog.text
    assert_same_arrays(model.encoder_q.backbone, queries(pretrained).backbone.get_weights())
    assert_same_arrays(model.encoder_q.head, head)
    for q, k in zip(model.encoder_q.weights, model.encoder_k.weights, strict=True):
        np.testing.assert_array_equal(q, k)


def test_another_backbone_and_a_wrong_path_are_refused(pretrained, tmp_path):
    with pytest.raises(
        ValueError, match=r"backbone of `--init`: --config.model.backbone.*3, 8.*3, 4"
    ):
        warm_start.load(str(pretrained), model_of(model__width=8))
    with pytest.raises(ValueError, match="--init.*nope', which does not exist"):
        warm_start.load(str(tmp_path / "nope"), model_of())


def test_a_file_of_pytorch_starts_what_it_holds(tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
    import torch_peer as peer

    old = peer.make_moco(width=8)
    old.queue_ptr[0] = 100
    path = str(tmp_path / "official.pth.tar")
    torch.save(peer.official(old), path)
    overrides = {"backbone": "resnet:resnet18", "width": 8, "stem": "imagenet", "dim": peer.DIM}
    overrides |= {"head": "mlp", "queue_size": 300}
    model = model_of(**{f"model__{name}": value for name, value in overrides.items()})
    facts = warm_start.load(path, model)
    assert facts["taken"] == ["query encoder", "key encoder", f"{peer.QUEUE} keys of the queue"]
    want = np.roll(old.queue.numpy().T, -100, axis=0)
    np.testing.assert_array_equal(model.queue[: peer.QUEUE], want)
    first = old.encoder_k.conv1.weight.numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.encoder_k.backbone.get_layer("conv1").kernel, first)


def test_a_workdir_keeps_what_it_was_started_from(pretrained, tmp_path, monkeypatch):
    source, workdir = str(tmp_path / "old"), str(tmp_path / "new")
    shutil.copytree(pretrained, source)
    trained = []

    def fit(model, *_, **__):
        trained.append([w.numpy() for w in model.encoder_q.weights])
        return 0

    monkeypatch.setattr(run.fit, "fit", fit)
    monkeypatch.setattr(run.report, "write", lambda *_: None)
    strategy = tf.distribute.get_strategy()
    images = encoders.load(source).run.data.source
    config = tiny.config(epochs=3, batch_size=32, model__queue_size=64, data__source=images)
    run.pretrain(config, workdir, strategy, init=warm_start.init(source))
    assert_same_arrays(encoders.load(workdir).encoder, queries(pretrained).get_weights())
    for a, b in zip(trained[0], encoders.load(source).encoder.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert initial.read_record(workdir)["path"] == source

    shutil.rmtree(source)  # a resumed run does not need it, nor the flag
    run.pretrain(config, workdir, strategy)
    run.pretrain(config, workdir, strategy, init=warm_start.init(source))
    with pytest.raises(ValueError, match=f"--init=other, but .* was started from {source}"):
        run.pretrain(config, workdir, strategy, init=warm_start.init("other"))


def test_a_changed_config_is_refused_with_the_way_on(pretrained):
    images = encoders.load(str(pretrained)).run.data.source
    config = tiny.config(epochs=3, data__source=images)
    with pytest.raises(ValueError) as refused:
        run.pretrain(config, str(pretrained), tf.distribute.get_strategy())
    message = str(refused.value)
    assert re.search(r"epochs: 1 -> 3", message)
    assert f"--init={pretrained}." in message
    assert "may change these fields: --config.stop_after_steps" in message


def test_one_checkpoint_of_a_run_is_evaluated_and_exported(pretrained, tmp_path):
    path = str(pretrained / "checkpoints" / "step-4")
    loaded = encoders.load(path)
    assert_same_arrays(loaded.encoder, queries(pretrained).get_weights())
    assert loaded.run == encoders.load(str(pretrained)).run
    assert loaded.folder == str(pretrained)
    export.export(f"{path}.index", "keras", str(tmp_path / "x.keras"))
    exported = encoders.load(str(tmp_path / "x.keras"))
    assert exported.digest == loaded.digest
    with pytest.raises(
        ValueError, match=r"step-N\).*no .*step-5. The run has kept step-2, step-4\."
    ):
        encoders.load(str(pretrained / "checkpoints" / "step-5"))


def test_chosen_sizes_keep_the_backbone_of_the_run_to_start_from(pretrained, caplog):
    config = presets.load("own_images")
    with caplog.at_level(logging.INFO):
        train._take_backbone(config, str(pretrained), {"model.stem": "imagenet"})
    run = tiny.config().model
    assert (config.model.backbone, config.model.width) == (run.backbone, run.width)
    assert (config.model.stem, config.model.head) == ("cifar", "linear")
    assert f"--config.model.width={run.width}, as in the run" in caplog.text
    train._take_backbone(config, str(pretrained / "encoder.keras"), {})
