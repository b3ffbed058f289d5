"""Typed dataclasses as configs: rules beside fields, checks, JSON, differences, help text.

Example:
    width: int | None = option(None, at_least=1, help="channels; none: the backbone's own")
"""

import dataclasses
import types
import typing
from typing import Any

from moco_tf.rules import Field, Rule


def option(
    default: Any,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    multiple_of: int | None = None,
    choices: tuple = (),
    min_items: int = 0,
    increasing: bool = False,
    help: str = "",
) -> Any:
    """A dataclass field with its rule and its help.

    Args:
        default: default value.
        at_least, above, at_most, below: limits of the number, or of each number in a tuple.
        multiple_of: number that it must be a multiple of.
        choices: all values that are allowed.
        min_items: items that a tuple must have at least.
        increasing: each item of a tuple must be larger than the one before it.
        help: what the field means, in a few words; `--help` shows it.

    Example:
        momentum: float = option(0.9, at_least=0, below=1, help="of the optimizer")
    """
    values = dict(locals())
    del values["default"]
    return dataclasses.field(default=default, metadata={"rule": Rule(**values)})


def fields(config: Any, path: str = "") -> list[Field]:
    """All fields of a config, those of its parts with dotted names."""
    hints = typing.get_type_hints(type(config))
    result = []
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(hints[field.name]):
            result += fields(value, f"{name}.")
        else:
            rule = field.metadata.get("rule", Rule())
            result.append(Field(name, value, rule, *_parse_type(hints[field.name])))
    return result


def check(config: Any):
    """Checks types and single-field rules; an int given for a float becomes one.

    Args:
        config: dataclass object whose fields are made by `option`.

    Raises:
        ValueError: naming the flag of the field, what must hold, and the value.
    """
    for field in fields(config):
        holder, name = _holder(config, field.name)
        rule = None
        if field.optional and field.value == ("none",):  # what a flag makes of a tuple's none
            setattr(holder, name, None)
        elif not field.has_type():
            rule = field.type_words()
        elif not field.holds():
            rule = field.words()
        elif field.value_type is float and type(field.value) is int:
            setattr(holder, name, float(field.value))
        if rule:
            raise ValueError(f"`--config.{field.name}` must be {rule}. Received: {field.value!r}.")


def require(config: Any, name: str, holds, rule: str):
    """Checks one field by a rule that depends on other fields.

    Args:
        config: dataclass object.
        name: name of the field, dotted.
        holds: function of its value.
        rule: what must hold, in words.

    Raises:
        ValueError: unless it holds.
    """
    holder, last = _holder(config, name)
    value = getattr(holder, last)
    if not holds(value):
        raise ValueError(f"`--config.{name}` must be {rule}. Received: {value!r}.")


def override(config: Any, name: str, value: Any):
    """Sets one field by its dotted name; raises ValueError for an unknown one."""
    if name not in {field.name for field in fields(config)}:
        raise ValueError(
            "An override must name a field of a run's config, such as model.momentum. "
            f"Received: {name!r}."
        )
    holder, last = _holder(config, name)
    setattr(holder, last, value)


def to_dict(config: Any) -> dict:
    """A JSON-ready nested dict."""
    return _lists(dataclasses.asdict(config))


def from_dict(config_class: type, values: dict, zeros_are_none: bool = False) -> Any:
    """The object of a config class, from the dict that `to_dict` returned.

    Args:
        config_class: dataclass of the config.
        values: values of the fields by name; missing fields get their defaults.
        zeros_are_none: 0, "" and () mean None in optional fields, as in version 0.1.0.

    Raises:
        ValueError: for an unknown field.
    """

    def build(cls, values, path):
        hints = typing.get_type_hints(cls)
        unknown = sorted(set(values) - set(hints))
        if unknown:
            raise ValueError(
                f"A config has the fields {', '.join(hints)}. Received: {path}{unknown[0]}."
            )
        given = {}
        for name, value in values.items():
            if dataclasses.is_dataclass(hints[name]):
                value = build(hints[name], value, f"{path}{name}.")
            elif zeros_are_none and isinstance(hints[name], types.UnionType):
                value = value or None
            given[name] = tuple(value) if isinstance(value, list) else value
        return cls(**given)

    return build(config_class, values, "")


def differences(old: dict, new: dict, path: str = "") -> list[str]:
    """Fields in which two dicts of `to_dict` differ, as "field: old -> new"."""
    result = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            result += differences(a, b, f"{path}{name}.")
        elif a != b:
            result.append(f"{path}{name}: {a!r} -> {b!r}")
    return result


def _lists(values):
    if isinstance(values, dict):
        return {name: _lists(value) for name, value in values.items()}
    return list(values) if isinstance(values, tuple) else values


def _holder(config, name):
    """The part of a config that has a field, and the field's last name."""
    *parts, last = name.split(".")
    for part in parts:
        config = getattr(config, part)
    return config, last


def _parse_type(hint):
    """Splits a type hint such as `int | None` or `tuple[int, ...]`.

    Returns:
        Arguments of `Field`: value_type, optional and, for a tuple, items and count.
    """
    optional = isinstance(hint, types.UnionType)
    if optional:
        (hint,) = [x for x in typing.get_args(hint) if x is not types.NoneType]
    if typing.get_origin(hint) is not tuple:
        return hint, optional
    items = typing.get_args(hint)
    return tuple, optional, items[0], None if items[-1] is Ellipsis else len(items)
