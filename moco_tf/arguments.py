"""Arguments of a class or function as texts in a config: "NAME=VALUE"."""

import ast
from collections.abc import Iterable, Sequence
from typing import Any

from moco_tf import spelling

WORDS = {"true": True, "false": False, "none": None}


def parse(texts: Iterable[str], names: Sequence[str] | None, taker: str, field: str) -> dict:
    """The arguments that texts set.

    Args:
        texts: each "NAME=VALUE".
        names: names that may be set; None for any.
        taker: class or function that takes them, in words.
        field: name of the option as it is typed, for the error.

    Returns:
        Values by name: true, false and none, numbers and tuples as Python has them; any other text
        as it is.

    Raises:
        ValueError: for a text without a name or a value, or an unknown name.

    Example:
        >>> parse(("layers=3", "bn=true"), ["layers", "bn"], "mlp", "--config.options")
        {'layers': 3, 'bn': True}
    """
    values = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name.isidentifier() or not value or (names is not None and name not in names):
            which = "" if names is None else f", which takes {', '.join(names) or 'none'}"
            raise ValueError(
                f"`{field}` must be NAME=VALUE of {taker}{which}. Received: {text!r}. "
                f"{spelling.hint(name, names or ())}".rstrip()
            )
        values[name] = _value(value)
    return values


def check_types(values: dict[str, Any], defaults: dict[str, Any], field: str):
    """Checks that each value has the type of its argument's default.

    Args:
        values: values by name, from `parse`.
        defaults: default values by name; an argument whose default is None may have any type.
        field: same as in `parse`.

    Raises:
        ValueError: for a value of another type; an integer may stand for a float.

    Example:
        >>> check_types({"layers": 3}, {"layers": 2, "bn": False}, "--config.options")
    """
    for name, value in values.items():
        default = defaults[name]
        is_number = isinstance(default, float) and type(value) is int
        if default is not None and type(value) is not type(default) and not is_number:
            raise ValueError(
                f"`{field}` must set {name} to a value like its default, {str(default).lower()}. "
                f"Received: {value!r}."
            )


def _value(text):
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
