"""Rules of config fields: type and range, their checks, and their descriptions in words."""

import dataclasses
import math
from typing import Any

NOUNS = {int: "an integer", float: "a finite number", str: "a string", bool: "true or false"}
PLURALS = {int: "whole numbers", float: "numbers", str: "strings"}
COUNTS = {1: "one", 2: "two", 3: "three"}


@dataclasses.dataclass(frozen=True)
class Rule:
    """Rule for the value of one field; for a tuple, for each of its items. See `option`."""

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


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
        name: dotted name, such as "model.width".
        value: value of the field.
        rule: `Rule` of the value.
        value_type: `int`, `float`, `str`, `bool` or `tuple`.
        optional: whether the value may be None.
        items: type of a tuple's items, else None.
        count: number of items of a tuple of fixed length, else None.
    """

    name: str
    value: Any
    rule: Rule
    value_type: type
    optional: bool
    items: type | None = None
    count: int | None = None

    def words(self) -> str:
        """The rule in words: "positive, or none"."""
        words = self._items() if self.value_type is tuple else self.rule.range()
        return self._or_none(words or NOUNS[self.value_type])

    def type_words(self) -> str:
        """The type, in words: "an integer, or none"."""
        is_tuple = self.value_type is tuple
        return self._or_none(f"a tuple of {self._items()}" if is_tuple else NOUNS[self.value_type])

    def describe(self) -> str:
        """Type and range, in words: "an integer, positive, or none"."""
        limits = self.rule.range()
        if self.value_type is tuple or self.rule.choices or not limits:
            return self.words() if self.rule.choices else self.type_words()
        return self._or_none(f"{NOUNS[self.value_type].replace('finite ', '')}, {limits}")

    def has_type(self) -> bool:
        """Whether the value is of the field's type; a whole number may stand for a float."""
        return self.optional if self.value is None else _is(self.value_type, self.value)

    def holds(self) -> bool:
        """Whether the value, which is of the field's type, is allowed."""
        value, rule = self.value, self.rule
        if value is None or self.value_type is not tuple:
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


def _is(value_type, value):
    if value_type is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is value_type
