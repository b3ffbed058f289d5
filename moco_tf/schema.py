"""Typed dataclasses as configs: checked, written to JSON and back, compared."""

import dataclasses
import typing


def to_dict(config):
    """A JSON-ready nested dict."""
    return _lists(dataclasses.asdict(config))


def from_dict(kind, values):
    """The object of a dataclass `kind` whose `to_dict` gave `values`.

    Raises:
        ValueError: for an unknown field.
    """

    def build(cls, values, path):
        types = typing.get_type_hints(cls)
        unknown = sorted(set(values) - set(types))
        if unknown:
            raise ValueError(
                f"A config has the fields {', '.join(types)}. Received: {path}{unknown[0]}."
            )
        made = {}
        for name, value in values.items():
            if dataclasses.is_dataclass(types[name]):
                value = build(types[name], value, f"{path}{name}.")
            made[name] = tuple(value) if types[name] is tuple else value
        return cls(**made)

    return build(kind, values, "")


def differences(old, new, path=""):
    """Fields in which two dicts of `to_dict` differ: list of "field: old -> new"."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{path}{name}.")
        elif a != b:
            found.append(f"{path}{name}: {a!r} -> {b!r}")
    return found


def _lists(values):
    if isinstance(values, dict):
        return {name: _lists(value) for name, value in values.items()}
    return list(values) if isinstance(values, tuple) else values


def check_types(config, path=""):
    """Checks that every field has its declared type and is finite; a float may be given as an int.

    Raises:
        ValueError: naming the field, its type and the value.
    """
    for name, kind in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(kind):
            check_types(value, f"{path}{name}.")
            continue
        if kind is float and type(value) is int:
            value = float(value)
            setattr(config, name, value)
        if type(value) is not kind or value != value or value in (float("inf"), -float("inf")):
            raise ValueError(
                f"`config.{path}{name}` must be a finite {kind.__name__}. Received: {value!r}."
                if kind is float
                else f"`config.{path}{name}` must be a {kind.__name__}. Received: {value!r}."
            )


def override(config, name, value):
    """Sets one field.

    Args:
        config: dataclass object.
        name: of the field, dotted.
        value: of the field's type.

    Raises:
        ValueError: for an unknown field.
    """
    *parts, last = name.split(".")
    for part in parts:
        config = getattr(config, part, None)
    fields = typing.get_type_hints(type(config)) if dataclasses.is_dataclass(config) else {}
    if last not in fields or dataclasses.is_dataclass(fields[last]):
        raise ValueError(
            "An override must name a field of a run's config, such as model.momentum. "
            f"Received: {name!r}."
        )
    setattr(config, last, value)


def require(config, name, holds, rule):
    """Checks one field.

    Args:
        config: dataclass object.
        name: of the field, dotted.
        holds: function of its value.
        rule: what must hold, in words.

    Raises:
        ValueError: unless it holds.
    """
    value = config
    for part in name.split("."):
        value = getattr(value, part)
    if not holds(value):
        raise ValueError(f"`config.{name}` must be {rule}. Received: {value!r}.")
