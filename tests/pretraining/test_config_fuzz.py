"""Every field of every config, set to what it cannot be: a message that names it, never more."""

import copy
import typing

import pytest
import tiny

from moco_tf.detection import config as detection
from moco_tf.evaluation import config as evaluation
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
    made = segmentation.Segmentation()
    made.data.train = made.data.test = "camvid:a:b"
    return made


def detection_config():
    made = detection.Detection()
    made.data.train = made.data.test = "coco:a,b"
    return made


CONFIGS = {
    "pretraining": (tiny.config(), pretraining.check),
    "detection": (detection_config(), detection.check),
    "segmentation": (segmentation_config(), segmentation.check),
    **{
        task: (kind(), lambda c, task=task: evaluation.check(c, task))
        for task, kind in evaluation.TASKS.items()
    },
}


def fields(config, path=""):
    """`(dotted name, type)` of all leaves."""
    for name, kind in typing.get_type_hints(type(config)).items():
        if hasattr(kind, "__dataclass_fields__"):
            yield from fields(getattr(config, name), f"{path}{name}.")
        else:
            yield f"{path}{name}", kind


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
    for name, kind in fields(config):
        for value in WRONG[kind]:
            with pytest.raises(ValueError, match=f"`config.{name}` must be") as found:
                check(changed(config, name, value))
            assert "Received: " in str(found.value)
            count += 1
    assert count > 50


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_extreme_value_is_taken_or_refused_by_the_name_of_a_field(kind):
    config, check = CONFIGS[kind]
    refused = set()
    for name, kind in fields(config):
        for value in EDGES[kind]:
            try:
                check(changed(config, name, value))
            except ValueError as error:
                assert "`config." in str(error) and "Received: " in str(error), (name, value, error)
                refused.add(name)
    numbers = {name for name, kind in fields(config) if kind in (int, float)}
    assert numbers <= refused, numbers - refused  # at least a negative one


PAIRS = [
    ({"model__queue_size": 8, "batch_size": 16}, "model.queue_size"),
    ({"model__queue_size": 16, "batch_size": 16, "model__symmetric": True}, "model.queue_size"),
    ({"batch_size": 16, "gradient_accumulation": 5}, "batch_size"),
    ({"monitor__resize_px": 8, "data__image_size_px": 16}, "monitor.resize_px"),
    ({"steps": 0, "epochs": 0}, "epochs"),
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
    with pytest.raises(ValueError, match=f"`config.{field}` must be"):
        tiny.config(**values)
