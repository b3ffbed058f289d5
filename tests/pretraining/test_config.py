"""The config schema refuses what cannot be, by name, and survives a round trip."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf import presets, schema
from moco_tf.detection import config as detection_config
from moco_tf.evaluation.task import find, names
from moco_tf.pretraining import ablation
from moco_tf.pretraining.config import Config, Monitor, check, from_json
from moco_tf.pretraining.mechanism import chance_loss
from moco_tf.segmentation import config as segmentation_config
from moco_tf.training import checkpoint
from moco_tf.training.config import Length

NAMES = [*presets.names(), "moco_v2:800ep"]
SCHEDULES = ("transfer/coco_mask_rcnn_c4:2x", "transfer/coco_mask_rcnn_fpn:2x")
TRANSFERS = [*(name for name in NAMES if name.startswith("transfer/")), *SCHEDULES]
SEGMENTATIONS = [name for name in TRANSFERS if name.endswith("_fcn")]
DETECTIONS = [name for name in TRANSFERS if not name.endswith("_fcn")]
EVALUATIONS = [name for name in NAMES if name.startswith("eval/")]
RUNS = [n for n in NAMES if "/" not in n or n.startswith(("ablations/", "moco_v3/"))]
TASKS = dict.fromkeys(("flowers", "cub", "semi"), "finetune")  # others by their name
TASKS["linear_v3"] = "linear"
END_TO_END = {"model__mechanism": "end_to_end"}
BANK = {"model__mechanism": "memory_bank", "model__shuffle": False}


@pytest.mark.parametrize("name", RUNS)
def test_every_recipe_is_valid_and_survives_json(name):
    configs = [presets.load(name)]
    if name.startswith("ablations/"):
        configs = [
            config
            for data in ("fabrics", "cifar10")
            for config in ablation.variants(presets.load(f"{name}:{data}")).values()
        ]
    for config in configs:
        check(config)
        assert schema.from_dict(Config, schema.to_dict(config)) == config


@pytest.mark.parametrize("name", EVALUATIONS)
def test_every_evaluation_is_valid_and_survives_json(name):
    config, stem = presets.load(name), name.removeprefix("eval/")
    find(TASKS.get(stem, stem)).check(config)
    assert schema.from_dict(type(config), schema.to_dict(config)) == config


@pytest.mark.parametrize("name", SEGMENTATIONS)
def test_every_segmentation_is_valid_and_survives_json(name):
    config, stem = presets.load(name), name.removeprefix("transfer/")
    segmentation_config.check(config)
    assert schema.from_dict(type(config), schema.to_dict(config)) == config
    o = config.optimizer
    assert o.milestones_steps == (round(0.7 * config.steps), round(0.9 * config.steps))
    assert o.learning_rate == {"voc_fcn": 0.003, "cityscapes_fcn": 0.01, "camvid_fcn": 0.02}[stem]


@pytest.mark.parametrize("name", DETECTIONS)
def test_every_detection_is_valid_and_survives_json(name):
    config = presets.load(name)
    words = name.removeprefix("transfer/").replace(":", "_").split("_")
    if words[1:3] == ["mask", "rcnn"] and words[0] == "coco" and words[-1] != "2x":
        words.append("1x")  # the file's own
    detection_config.check(config)
    assert schema.from_dict(type(config), schema.to_dict(config)) == config
    o = config.optimizer
    if words[1] == "overfit" or words[0] == "bccd":  # of a CPU's size
        return
    rates = {"retinanet": 0.01, "densepose": 0.002}
    rate = rates.get(words[1], 0.02)
    assert o.learning_rate * 16 / o.reference_batch == rate and o.reference_batch in (8, 16)
    assert (o.schedule, o.momentum, o.weight_decay) == ("step", 0.9, 1e-4)
    assert config.batch_size == o.reference_batch and config.regions == 512
    schedules = {"1x": (60, 80, 90), "2x": (120, 160, 180), "voc": (18, 22, 24)}
    schedules |= {"cityscapes": (18, 24), "s1x": (100, 120, 130)}
    (schedule,) = [s for key, s in schedules.items() if key in words]
    assert (*o.milestones_steps, config.steps) == tuple(1000 * s for s in schedule)
    assert config.masks == ("mask" in words) and config.keypoints == ("keypoint" in words)
    assert config.densepose == ("densepose" in words)
    assert config.architecture in words
    assert config.metric == words[0]
    beta = 0.5 if config.keypoints else 0.0
    assert config.box_beta == beta and config.after_nms == ((1500, 1000) if beta else None)
    lvis = (0.001, 300, 0.0001) if "lvis" in words else (0.0, 100, 0.05)
    assert (config.data.repeat_threshold, config.detections, config.lowest_score) == lvis


def test_recipes_carry_the_papers_numbers():
    v1, v2, demo = (presets.load(name) for name in ("moco_v1", "moco_v2", "cifar10_demo"))
    assert dataclasses.replace(presets.load("moco_v2:800ep"), epochs=200) == v2
    for config in (v1, v2):
        assert (config.batch_size, config.epochs) == (256, 200)
        assert (config.model.queue_size, config.model.momentum) == (65536, 0.999)
        o = config.optimizer
        assert (o.learning_rate, o.momentum, o.weight_decay) == (0.03, 0.9, 1e-4)
        assert config.model.bn_group_size == 32
    assert (v1.model.temperature, v1.model.head, v1.optimizer.schedule) == (0.07, "linear", "step")
    assert v1.optimizer.milestones_epochs == (120, 160)
    assert (v2.model.temperature, v2.model.head, v2.optimizer.schedule) == (0.2, "mlp", "cosine")
    assert demo.optimizer.learning_rate * demo.batch_size / 256 == 0.06
    assert (demo.model.queue_size, demo.model.momentum, demo.model.temperature) == (4096, 0.99, 0.1)


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"batch_size": 0}, "`--config.batch_size` must be positive. Received: 0"),
        ({"batch_size": "16"}, "`--config.batch_size` must be an integer. Received: '16'"),
        ({"model__temperature": 0.0}, "`--config.model.temperature` must be positive"),
        ({"model__temperature": float("nan")}, "must be a finite number"),
        ({"model__momentum": 1.5}, r"`--config.model.momentum` must be in \[0, 1\]"),
        ({"model__queue_size": 8}, "at least the new keys of a step, 16"),
        ({"model__queue_size": 20, "model__symmetric": True}, "new keys of a step, 32"),
        ({"model__head": "none"}, "one of linear, mlp, mlp_bn2, mlp_bn3. Received: 'none'"),
        ({"gradient_accumulation": 3}, "multiple of gradient_accumulation=3"),
        ({"epochs": 0}, "`--config.epochs` must be positive, or none. Received: 0"),
        ({"epochs": None}, "`--config.epochs` must be positive, unless `--config.steps` is"),
        ({"optimizer__milestones_epochs": (160, 120)}, "increasing positive whole numbers"),
        ({"optimizer__milestones_steps": (10,)}, "empty in runs of epochs"),
        ({"steps": 10, "optimizer__warmup_epochs": 1.0}, "0 in runs of steps"),
        ({"profile_steps": (3, 2)}, "the first and the last step"),
        ({"data__max_bad_fraction": 2.0}, r"in \[0, 1\]"),
        ({"data__augment_on": "gpu"}, "one of auto, host, device"),
        ({"model__mechanism": "none"}, "one of queue, end_to_end, memory_bank"),
        ({**END_TO_END, "model__symmetric": True}, "symmetric` must be false with model.mech"),
        ({**END_TO_END, "gradient_accumulation": 2}, '1 with model.mechanism="end_to_end"'),
        ({**BANK, "model__symmetric": True}, "symmetric` must be false with model.mechanism"),
        ({**BANK, "gradient_accumulation": 2}, '1 with model.mechanism="memory_bank"'),
        (
            {**BANK, "model__shuffle": True},
            'shuffle` must be false with model.mechanism="memory_bank"',
        ),
    ],
)
def test_an_impossible_value_names_field_rule_and_value(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny.config(**overrides)


def test_chance_counts_the_negatives_of_each_mechanism():
    assert chance_loss(tiny.config()) == np.log(41)
    symmetric = tiny.config(model__symmetric=True, model__queue_size=32)
    assert chance_loss(symmetric) == 2 * np.log(33)
    assert chance_loss(tiny.config(**END_TO_END)) == np.log(16)
    assert chance_loss(tiny.config(**BANK)) == np.log(41)


def test_an_ablation_starts_from_the_quickstart_or_the_demo():
    assert ablation.base("fabrics") == presets.load("quickstart")
    demo = presets.load("cifar10_demo")
    base = ablation.base("cifar10")
    base.monitor.every_epochs = demo.monitor.every_epochs
    assert base == demo
    with pytest.raises(KeyError, match="must be fabrics or cifar10. Received: 'mnist'"):
        ablation.base("mnist")


EVERY_CONFIG = {"pretraining": Config, **{name: find(name).Config for name in names()}}


@pytest.mark.parametrize("make", EVERY_CONFIG.values(), ids=EVERY_CONFIG)
def test_every_field_has_help_and_every_number_a_limit(make):
    for field in schema.fields(make()):
        assert field.rule.help, field.name
        if field.value_type in (int, float):
            assert not dataclasses.replace(field, value=-1).holds(), field.name
        default = dataclasses.replace(field)
        assert default.has_type() and default.holds(), field.name


def test_a_tuple_says_how_many_items_it_has_and_which():
    @dataclasses.dataclass
    class Sizes:
        pair: tuple[int, int] | None = schema.option(None, at_least=1)
        some: tuple[float, ...] = schema.option((0.5,), at_least=0, min_items=1)

    schema.check(Sizes(pair=(1, 2), some=(0, 1.5)))
    taken_from_a_flag = Sizes(pair=("none",))
    schema.check(taken_from_a_flag)
    assert taken_from_a_flag.pair is None
    with pytest.raises(ValueError, match=r"two positive whole numbers, or none. Received: \(1,\)"):
        schema.check(Sizes(pair=(1,)))
    with pytest.raises(ValueError, match=r"numbers of zero or more, at least one. Received: \(\)"):
        schema.check(Sizes(some=()))


def test_a_run_is_as_long_as_its_epochs_or_its_steps():
    assert Length(epochs=2).total_steps(10) == 20
    assert Length(steps=7).total_steps(10) == 7
    assert Config(epochs=3).length == Length(epochs=3)
    assert Config(epochs=3, steps=5).length == Length(steps=5)
    assert Config().monitor.every == Length(epochs=1)
    assert Monitor(every_epochs=None).every is None
    assert Monitor(every_steps=4).every == Length(steps=4)
    assert Monitor(source="off").every is None
    with pytest.raises(ValueError, match="its epochs or its steps. Received: epochs=1, steps=2"):
        Length(epochs=1, steps=2)


def test_an_unknown_field_in_a_saved_config_is_named():
    with pytest.raises(ValueError, match="Received: model.nope"):
        schema.from_dict(Config, {"model": {"nope": 1}})


def test_a_workdir_is_refused_to_another_config_but_not_to_a_longer_run(tmp_path):
    def claim(config):
        checkpoint.claim_workdir(
            schema.to_dict(config), str(tmp_path), tf.distribute.get_strategy()
        )

    claim(tiny.config(seed=1))  # a workdir without a checkpoint or a result is new
    claim(tiny.config())
    (tmp_path / "checkpoints").mkdir()
    claim(tiny.config(stop_after_steps=9, log_every_steps=1))
    with pytest.raises(ValueError, match=r"model.dim: 8 -> 16; --config.seed: 0 -> 2"):
        claim(tiny.config(seed=2, model__dim=16))


def test_a_workdir_of_version_0_1_0_is_refused_with_what_to_do(tmp_path):
    old = schema.to_dict(tiny.config()) | {"stop_after_steps": 0, "profile_steps": []}
    (tmp_path / "config.json").write_text(json.dumps(old))
    (tmp_path / "encoder.keras").touch()
    with pytest.raises(ValueError, match=r"moco_tf 0.1.0.*new --workdir.*--checkpoint=.*keras"):
        checkpoint.check_workdir(schema.to_dict(tiny.config()), str(tmp_path))


def test_the_config_of_a_run_of_version_0_1_0_is_read_for_its_encoder():
    new = tiny.config(model__width=None, data__data_dir=None, profile_steps=None, seed=0)
    old = schema.to_dict(new)
    old["model"] |= {"width": 0, "hidden": 0}
    old["data"] |= {"data_dir": "", "num_examples": 0}
    old |= {"steps": 0, "profile_steps": []}
    assert from_json(old) == new
    assert from_json({"moco_tf": "0.2.0", **schema.to_dict(new)}) == new
