"""MoCo v3 by its config: options of mechanism and backbone, runs, and a checkpoint that resumes."""

import keras
import numpy as np
import pytest
import tiny

from moco_tf import arguments
from moco_tf.backbones.batch_norm import BatchNorm
from moco_tf.commands import config_flag
from moco_tf.contrastive import Contrastive
from moco_tf.pretraining import build, mechanism

V3 = {
    "model__mechanism": "moco_v3",
    "model__backbone": "resnet:resnet18",
    "model__backbone_options": ("synchronized_bn=true",),
    "model__head": "mlp_bn2",
    "model__hidden": 16,
    "model__momentum": 0.9,
    "model__symmetric": True,
    "model__shuffle": False,
    "model__bn_group_size": None,
}
FIELD = "--config.model.mechanism_options"


@pytest.mark.parametrize(
    "text, want",
    [
        ("", {}),
        ("a=1,b=2.5,c=1e-3", {"a": 1, "b": 2.5, "c": 1e-3}),
        ("a=true,b=false,c=none,d=cosine", {"a": True, "b": False, "c": None, "d": "cosine"}),
    ],
)
def test_options_are_read_as_values(text, want):
    texts = text.split(",") if text else ()
    assert arguments.parse(texts, None, "it", FIELD) == want
    assert arguments.parse(texts, list(want), "it", FIELD) == want


@pytest.mark.parametrize("text", ("a", "=1", "a=", "", "a b=1"))
def test_options_without_a_name_or_a_value_are_refused(text):
    with pytest.raises(
        ValueError, match=rf"`{FIELD}` must be NAME=VALUE of it. Received: {text!r}"
    ):
        arguments.parse([text], None, "it", FIELD)


@pytest.mark.parametrize(
    "options, text",
    [
        (
            "predictor_layer=0",
            "must be NAME=VALUE of the mechanism moco_v3, .*mean predictor_layers",
        ),
        ("momentum=0.5", "must be .* which takes .*Received: 'momentum=0.5'"),
        ("total_steps=5", "must be .* which takes .*Received: 'total_steps=5'"),
        ("predictor_bn=1", "must set predictor_bn to a value like its default, false. Received: 1"),
        ("momentum_schedule=true", "must set .* like its default, cosine. Received: True"),
    ],
)
def test_options_are_the_mechanisms_own_arguments(options, text):
    with pytest.raises(ValueError, match=f"`{FIELD}` {text}"):
        tiny.config(**V3, model__mechanism_options=(options,))


def test_a_flag_takes_several_options():
    parse = config_flag.Items().parse
    assert parse("a=1,b=true") == ("a=1", "b=true")
    assert parse("a=1") == parse("a=1,") == ("a=1",)
    assert parse("('a=1', 'b=(2, 3)')") == ("a=1", "b=(2, 3)")
    assert parse("none") == ()
    assert parse("60,80") == (60, 80) and parse("0.6,") == (0.6,)


def test_a_mechanism_without_options_says_so():
    with pytest.raises(
        ValueError, match=f"`{FIELD}` must be .* queue, which takes none. Received: 'alpha=1'"
    ):
        tiny.config(model__mechanism_options=("alpha=1",))


class Weighted(Contrastive):
    """A mechanism of a user's own, with an argument that no field sets."""

    mechanism = "weighted"

    def __init__(self, encoder, alpha, temperature=0.07, shuffle=True, seed=0, **kwargs):
        super().__init__(encoder, temperature, shuffle, seed=seed, **kwargs)
        self.alpha = alpha


def test_a_users_mechanism_gets_its_own_arguments():
    name = {"model__mechanism": f"{__name__}:Weighted"}
    config = tiny.config(**name, model__mechanism_options=("alpha=0.25",))
    assert mechanism.settings(config, 10, 5)["alpha"] == 0.25
    with pytest.raises(ValueError, match=f"`{FIELD}` must set alpha.*Received: none"):
        tiny.config(**name)


def test_the_run_gives_the_arguments_that_its_length_sets():
    config = tiny.config(**V3, model__mechanism_options=("predictor_bn=true",), epochs=3)
    values = mechanism.settings(config, num_images=100, steps_per_epoch=7)
    want = {"total_steps": 21, "predictor_bn": True, "hidden": 16, "momentum": 0.9, "seed": 0}
    assert {name: values[name] for name in want} == want


def test_chance_is_that_of_the_scaled_loss():
    config = tiny.config(**V3, model__temperature=0.2)
    np.testing.assert_allclose(mechanism.chance_loss(config), 2 * 2 * 0.2 * np.log(16))
    np.testing.assert_allclose(mechanism.chance_top1(config), 1 / 16)


def test_options_reach_the_backbone_and_the_heads_are_v3s():
    options = ("synchronized_bn=true", "zero_init_residual=true")
    config = tiny.config(**V3 | {"model__backbone_options": options})
    encoder = build.make_encoder(config.model)
    norms = [x for x in encoder.backbone.layers if isinstance(x, BatchNorm)]
    assert all(norm.synchronized for norm in norms)
    zeros = [norm.name for norm in norms if not norm.gamma.numpy().any()]
    assert zeros == [f"layer{stage}.{i}.bn2" for stage in (1, 2, 3, 4) for i in (0, 1)]
    weights = ["/".join(w.path.split("/")[-2:]) for w in encoder.head.weights]
    hidden = ["fc.0/kernel", "fc.1/gamma", "fc.1/beta", "fc.1/moving_mean", "fc.1/moving_variance"]
    assert weights == [*hidden, "fc.3/kernel", "fc.4/moving_mean", "fc.4/moving_variance"]
    with pytest.raises(ValueError, match="`--config.model.backbone_options` must be NAME=VALUE of"):
        build.make_encoder(tiny.config(**V3 | {"model__backbone_options": ("depth=3",)}).model)


TINY = V3 | {
    "model__backbone": "small_resnet:two_blocks",
    "model__backbone_options": (),
}


def test_a_run_logs_the_rising_momentum_and_saves_its_encoder(tmp_path):
    tiny.pretrain(tmp_path, **TINY, steps=4)
    lines = tiny.metrics(tmp_path)
    assert [line["momentum"] for line in lines if "momentum" in line] == pytest.approx(
        [1 - 0.1 * 0.5 * (1 + np.cos(np.pi * step / 4)) for step in (1, 3)]
    )
    assert np.isfinite([line["loss"] for line in lines if "loss" in line]).all()
    assert "queue_fill" not in lines[-1] and "positives_in_group" not in lines[-1]
    encoder = keras.models.load_model(tmp_path / "encoder.keras")
    assert encoder.output_shape == (None, 8)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ("lars", "adamw"))
def test_a_run_resumes_with_its_predictor_and_momentum(optimizer, tmp_path):
    options = TINY | {"optimizer__name": optimizer, "steps": 4}
    for workdir, stops in (("whole", [4]), ("parts", [2, 4])):
        for stop in stops:
            tiny.pretrain(tmp_path / workdir, **options, stop_after_steps=stop)
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "parts")
    assert any(name.startswith("model/predictor/") for name in tiny.saved(tmp_path / "whole"))
