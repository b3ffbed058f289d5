"""Typed dataclasses as configs: rules beside fields, checks, JSON, differences, help text.

Example:
    width: int | None = option(None, at_least=1, help="channels; none: the backbone's own")
"""

import dataclasses
import math
import types
import typing
from typing import Any

NOUNS = {int: "an integer", float: "a finite number", str: "a string", bool: "true or false"}
PLURALS = {int: "whole numbers", float: "numbers", str: "strings"}
COUNTS = {1: "one", 2: "two", 3: "three"}


@dataclasses.dataclass(frozen=True)
class Rule:
    """What must hold for one field; for a tuple, for each of its items. See `option`."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    multiple_of: int | None = None
    choices: tuple = ()
    min_items: int = 0
    increasing: bool = False
    help: str = ""

    def holds(self, value: Any) -> bool:
        """Whether one value, or one item of a tuple, is among the choices and in the range."""
        return not (
            (self.choices and value not in self.choices)
            or (self.at_least is not None and value < self.at_least)
            or (self.above is not None and value <= self.above)
            or (self.at_most is not None and value > self.at_most)
            or (self.below is not None and value >= self.below)
            or (self.multiple_of is not None and value % self.multiple_of)
        )

    def range(self) -> str:
        """The range in words, such as "positive", "in [0, 1)" or "one of linear, mlp"."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        low = self.above if self.at_least is None else self.at_least
        high = self.below if self.at_most is None else self.at_most
        positive = self.above == 0 or self.at_least == 1
        if self.multiple_of is not None:
            return f"a {'positive ' if positive else ''}multiple of {self.multiple_of}"
        if low is not None and high is not None:
            left = "(" if self.at_least is None else "["
            right = ")" if self.at_most is None else "]"
            return f"in {left}{low:g}, {high:g}{right}"
        if positive:
            return "positive"
        if self.at_least == 0:
            return "zero or more"
        limits = ("at_least", "above", "at_most", "below")
        given = [(name.replace("_", " "), getattr(self, name)) for name in limits]
        return " and ".join(f"{name} {limit:g}" for name, limit in given if limit is not None)


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


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
        name: its name, dotted, such as "model.width".
        value: its value.
        rule: `Rule`.
        kind: `int`, `float`, `str`, `bool` or `tuple`.
        optional: whether None is a value.
        items: type of a tuple's items, else None.
        count: number of items of a tuple of fixed length, else None.
    """

    name: str
    value: Any
    rule: Rule
    kind: type
    optional: bool
    items: type | None = None
    count: int | None = None

    def words(self) -> str:
        """What must hold, in words: "positive, or none"."""
        words = self._items() if self.kind is tuple else self.rule.range()
        return self._or_none(words or NOUNS[self.kind])

    def type_words(self) -> str:
        """The type, in words: "an integer, or none"."""
        is_tuple = self.kind is tuple
        return self._or_none(f"a tuple of {self._items()}" if is_tuple else NOUNS[self.kind])

    def has_type(self) -> bool:
        """Whether the value is of the field's type; a whole number may stand for a float."""
        return self.optional if self.value is None else _is(self.kind, self.value)

    def holds(self) -> bool:
        """Whether the value, which is of the field's type, is allowed."""
        value, rule = self.value, self.rule
        if value is None or self.kind is not tuple:
            return value is None or rule.holds(value)
        return (
            (self.count is None or len(value) == self.count)
            and len(value) >= rule.min_items
            and all(_is(self.items, item) and rule.holds(item) for item in value)
            and (not rule.increasing or list(value) == sorted(set(value)))
        )

    def _items(self):
        limits = self.rule.range()
        words = [COUNTS[self.count]] if self.count else []
        words += ["increasing"] if self.rule.increasing else []
        if limits == "positive":
            words += [limits, PLURALS[self.items]]
        else:
            words += [PLURALS[self.items], "of" if limits == "zero or more" else "", limits]
        least = self.rule.min_items
        return " ".join(w for w in words if w) + (f", at least {COUNTS[least]}" if least else "")

    def _or_none(self, text):
        return f"{text}, or none" if self.optional else text


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
        elif field.kind is float and type(field.value) is int:
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


def from_dict(kind: type, values: dict) -> Any:
    """The object of a dataclass `kind` whose `to_dict` gave `values`.

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
            given[name] = tuple(value) if isinstance(value, list) else value
        return cls(**given)

    return build(kind, values, "")


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
    """`(kind, optional, items, count)` of a type such as `int | None` or `tuple[int, ...]`."""
    optional = isinstance(hint, types.UnionType)
    if optional:
        (hint,) = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    if typing.get_origin(hint) is not tuple:
        return hint, optional
    items = typing.get_args(hint)
    return tuple, optional, items[0], None if items[-1] is Ellipsis else len(items)


def _is(kind, value):
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is kind
