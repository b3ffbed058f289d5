"""Every field of every config, set to what it cannot be: a message that names it, never more."""

import copy

import pytest
import tiny

from moco_tf import schema
from moco_tf.detection import config as detection
from moco_tf.evaluation.task import find
from moco_tf.pretraining import config as pretraining
from moco_tf.segmentation import config as segmentation

INF = float("inf")
WRONG = {int: ["1", 1.5, True, None, (1,)], float: ["1", True, None, (1.0,), float("nan")]}
WRONG |= {str: [1, None, ("a",)], bool: [1, "true", None], tuple: [1, "1", None, [1]]}
EDGES = {int: [0, -1, 10**18], float: [0.0, -1.0, 1e30, float("inf")], bool: [True, False]}
EDGES |= {
    str: ["", "nonsense", "x:y:z"],
    tuple: [(), (0,), (-1,), ("a",), (1.5,), (3, 2, 1), (True,), (INF,)],
}


def segmentation_config():
    config = segmentation.Segmentation()
    config.data.train = config.data.test = "camvid:a:b"
    return config


def detection_config():
    config = detection.Detection()
    config.data.train = config.data.test = "coco:a,b"
    return config


CONFIGS = {
    "pretraining": (tiny.config(), pretraining.check),
    "detection": (detection_config(), detection.check),
    "segmentation": (segmentation_config(), segmentation.check),
    **{
        name: (find(name).Config(), find(name).check)
        for name in ("knn", "linear_cached", "linear", "finetune")
    },
}


def changed(config, name, value):
    config = copy.deepcopy(config)
    *parts, last = name.split(".")
    part = config
    for step in parts:
        part = getattr(part, step)
    setattr(part, last, value)
    return config


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_wrong_type_is_refused_by_the_name_of_its_field(kind):
    config, check = CONFIGS[kind]
    check(copy.deepcopy(config))
    count = 0
    for field in schema.fields(config):
        for value in WRONG[field.value_type]:
            if value is None and field.optional:
                continue
            with pytest.raises(ValueError, match=f"`--config.{field.name}` must be") as error:
                check(changed(config, field.name, value))
            assert "Received: " in str(error.value)
            count += 1
    assert count > 50


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_extreme_value_is_taken_or_refused_by_the_name_of_a_field(kind):
    config, check = CONFIGS[kind]
    refused = set()
    for field in schema.fields(config):
        for value in [*EDGES[field.value_type], None]:
            try:
                check(changed(config, field.name, value))
            except ValueError as error:
                context = (field.name, value, error)
                assert "`--config." in str(error) and "Received: " in str(error), context
                refused.add(field.name)
    numbers = {field.name for field in schema.fields(config) if field.value_type in (int, float)}
    assert numbers <= refused, numbers - refused  # at least a negative one


PAIRS = [
    ({"model__queue_size": 8, "batch_size": 16}, "model.queue_size"),
    ({"model__queue_size": 16, "batch_size": 16, "model__symmetric": True}, "model.queue_size"),
    ({"batch_size": 16, "gradient_accumulation": 5}, "batch_size"),
    ({"monitor__resize_px": 8, "data__image_size_px": 16}, "monitor.resize_px"),
    ({"steps": None, "epochs": None}, "epochs"),
    ({"steps": 10, "optimizer__milestones_epochs": (1,)}, "optimizer.milestones_epochs"),
    ({"steps": 10, "optimizer__warmup_epochs": 1.0}, "optimizer.warmup_epochs"),
    ({"optimizer__milestones_steps": (1,)}, "optimizer.milestones_steps"),
    ({"optimizer__warmup_steps": 1}, "optimizer.warmup_steps"),
    ({"model__mechanism": "end_to_end", "model__symmetric": True}, "model.symmetric"),
    ({"model__mechanism": "memory_bank"}, "model.shuffle"),
    ({"profile_steps": (5, 2)}, "profile_steps"),
]


@pytest.mark.parametrize("values, field", PAIRS)
def test_an_impossible_pair_is_refused_by_name(values, field):
    with pytest.raises(ValueError, match=f"`--config.{field}` must be"):
        tiny.config(**values)
