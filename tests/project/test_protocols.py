"""docs/protocols.md lists every hyper-parameter of every config, and a change of one fails."""

import copy
import dataclasses
import inspect
import runpy

import hyper_parameters
import protocols
import pytest

from moco_tf import presets, schema
from moco_tf.schema import option


@pytest.fixture(scope="module")
def lines():
    return protocols.read_lines()


@pytest.fixture(scope="module")
def values():
    """Hyper-parameters of all configs and of the code, by config and name."""
    configs = hyper_parameters.read_configs()
    values = {name: hyper_parameters.values_of(config) for name, config in configs.items()}
    return values | hyper_parameters.constants()


def test_the_page_is_what_the_script_writes():
    assert protocols.DOCUMENT.read_text() == protocols.document(), "Run: python tools/protocols.py"


def other(value):
    """A value of the same type that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, 7]
    return value | {"x": 7} if isinstance(value, dict) else value * 1.5 + 1


def test_any_changed_number_has_no_line(values, lines):
    for config, fields in values.items():
        for field, value in fields.items():
            covering = [line for line in lines if line.covers(config, field, other(value))]
            assert not covering, f"{config}: {field} could change unseen, see {covering}"


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("moco_v2", "model.temperature", 0.07),
        ("moco_v1", "optimizer.reference_batch", 512),  # halves the rate of its batch
        ("moco_v1", "data.recipe", "moco:v2"),
        ("transfer/voc_c4", "after_nms", (1000, 1000)),  # none, the architecture's, is 2000
        ("eval/linear", "optimizer.weight_decay", 1e-4),
    ],
)
def test_a_changed_field_of_a_config_is_reported(values, lines, name, field, value):
    config = presets.load(name)
    schema.override(config, field, value)
    changed = values | {name: hyper_parameters.values_of(config)}
    with pytest.raises(ValueError, match=rf"{name}: .* has 0 lines"):
        protocols.find_lines(changed, lines)


def test_a_new_field_needs_a_line_or_a_place_among_those_left_out():
    config = presets.load("transfer/voc_c4")
    kind = dataclasses.make_dataclass(
        "Detection", [("dropout", float, option(0.1))], bases=(type(config),)
    )
    new = kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})
    assert "dropout" in hyper_parameters.values_of(new)


def test_a_line_that_nothing_matches_and_a_second_line_are_reported(values, lines):
    unused = dataclasses.replace(lines[0], field="model.unknown")
    with pytest.raises(ValueError, match=r"nothing matches Line\(.*model.unknown"):
        protocols.find_lines(values, [*lines, unused])
    with pytest.raises(ValueError, match="has 2 lines"):
        protocols.find_lines(values, [*lines, copy.copy(lines[0])])


def test_a_difference_needs_a_reason():
    line = {"section": "detection", "source": "x", "field": "a", "configs": "*", "value": 1}
    protocols.Line(**line)
    protocols.Line(**line, here=2, why="memory")
    for wrong in ({"here": 2}, {"why": "memory"}, {"here": 1, "why": "memory"}):
        with pytest.raises(ValueError, match="must have `here` and `why`"):
            protocols.Line(**line, **wrong)


def test_names_left_out_are_fields_or_constants():
    fields = {
        field.name
        for config in hyper_parameters.read_configs().values()
        for field in schema.fields(config)
    }
    names = {name for names in hyper_parameters.LEFT_OUT.values() for name in names}
    assert names - fields == {  # constants of the code
        "detector.ANCHORS",
        "detector.REGIONS",
        "roi_align.CHUNK",
        "densepose_head.MAPS",
        "retinanet.STAGES",
    }


def test_every_argument_of_a_config_file_is_listed():
    for name in presets.names():
        takes = inspect.signature(runpy.run_path(presets.find(name))["get_config"]).parameters
        listed = name in hyper_parameters.ARGUMENTS or name.startswith("ablations/")
        assert bool(takes) == listed, f"{name}: add its arguments to ARGUMENTS"
