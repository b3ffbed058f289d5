"""Findings of a data check: what is wrong, where, how often, and whether it refuses training.

A `Kind` is one sort of problem. The kinds of a data set stand together in one module, such as
moco_tf/detection/data/problems.py, so that one place decides what refuses training. Readers and
checks report each case to a `Findings`, which counts them and keeps the first three of each kind.

Example:
    >>> SMALL = Kind("dropped", "boxes of no width", "Draw them again.")
    >>> findings = Findings()
    >>> findings.add(SMALL, "set.json", "annotation 7", "bbox", [3, 3, 0, 9])
    >>> print(findings.lines()[0])
    dropped: 1 boxes of no width (set.json, annotation 7: bbox = [3, 3, 0, 9]). Draw them again.
"""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Any

REFUSED, DROPPED, WARNING, NOTE = "refused", "dropped", "warning", "note"
SEVERITIES = (REFUSED, DROPPED, WARNING, NOTE)  # the worst first
SHOWN = 3  # findings of each kind that are kept
LONGEST = 80  # characters of a field's value that are shown


@dataclasses.dataclass(frozen=True)
class Kind:
    """A sort of problem.

    Attributes:
        severity: one of `SEVERITIES`: training is refused, something is left out, something may be
            wrong, or something is worth to know.
        what: what the findings are, plural, such as "boxes of no width".
        remedy: what to do, in a sentence or two; may be empty for a note.
        counted: whether the number of findings means something; false for a fact of the whole set,
            such as "no objects".
    """

    severity: str
    what: str
    remedy: str = ""
    counted: bool = True


@dataclasses.dataclass(frozen=True)
class Finding:
    """One case of a problem.

    Attributes:
        severity: severity of its kind.
        what: what it is, from its kind.
        file: path of the file; "" if it concerns no one file.
        record: what names the record in the file, such as "annotation 7" or "line 3".
        field: name of the field; "" for the whole record.
        value: value of the field; without a field, a text in words.
    """

    severity: str
    what: str
    file: str = ""
    record: str = ""
    field: str = ""
    value: Any = None

    def place(self, after: "Finding | None" = None) -> str:
        """Where and what, such as "set.json, annotation 7: bbox = [3, 3, 0, 9]".

        Args:
            after: finding that stands before it; its file is not named again.
        """
        if isinstance(self.value, str) and not self.field:
            value = self.value
        else:
            value = repr(self.value)
            value = value if len(value) <= LONGEST else f"{value[: LONGEST - 3]}..."
        is_same = after is not None and after.file == self.file and self.record
        text = ", ".join(part for part in ("" if is_same else self.file, self.record) if part)
        if self.field:
            return ": ".join(part for part in (text, f"{self.field} = {value}") if part)
        return text if self.value is None else ": ".join(part for part in (text, value) if part)


class Findings:
    """Collects findings: a count for each kind, and the first `SHOWN` of them."""

    def __init__(self):
        self._counts = {}
        self._shown = {}
        self._has_more = set()  # kinds with findings that are not shown

    def add(
        self,
        kind: Kind,
        file: str = "",
        record: str = "",
        field: str = "",
        value: Any = None,
        count: int = 1,
    ) -> None:
        """Adds a finding, or several that one text describes.

        Args:
            kind: sort of problem.
            file, record, field, value: see `Finding`.
            count: number of cases that this finding stands for; 0 adds nothing.
        """
        if not count:
            return
        self._counts[kind] = self._counts.get(kind, 0) + count
        shown = self._shown.setdefault(kind, [])
        if len(shown) < SHOWN:
            shown.append(Finding(kind.severity, kind.what, file, record, field, value))
        else:
            self._has_more.add(kind)

    def add_each(self, kind: Kind, numbers: Sequence[int], describe) -> None:
        """Adds a finding for each number, and describes the first ones only.

        Args:
            kind: sort of problem.
            numbers: numbers of objects or images.
            describe: function of a number that returns file, record, field and value.
        """
        described = min(len(numbers), max(SHOWN - len(self._shown.get(kind, ())), 0))
        for number in numbers[:described]:
            self.add(kind, *describe(number))
        self.add(kind, count=len(numbers) - described)

    def kinds(self, *severities: str) -> list[Kind]:
        """The kinds that occur, the worst first; of these severities, or of all."""
        kinds = [kind for kind in self._counts if kind.severity in (severities or SEVERITIES)]
        return sorted(kinds, key=lambda kind: SEVERITIES.index(kind.severity))

    def count(self, kind: Kind) -> int:
        """Number of findings of a kind."""
        return self._counts.get(kind, 0)

    def shown(self, kind: Kind) -> tuple[Finding, ...]:
        """The first findings of a kind."""
        return tuple(self._shown.get(kind, ()))

    def describe(self, kind: Kind) -> str:
        """Count, problem, places and remedy of a kind, in one line."""
        count = self.count(kind)
        places = self.places(kind)
        places += [f"{count} in all"] if kind in self._has_more else []
        text = (f"{count:,} " if kind.counted else "") + kind.what
        text += f" ({'; '.join(places)})" if places else ""
        return " ".join(part for part in (f"{text}.", kind.remedy) if part)

    def places(self, kind: Kind) -> list[str]:
        """Places of the first findings of a kind, each file named once."""
        shown = self.shown(kind)
        texts = [
            finding.place(other) for finding, other in zip(shown, (None, *shown), strict=False)
        ]
        return [text for text in texts if text]

    def lines(self, severities: Iterable[str] = SEVERITIES) -> list[str]:
        """One line for each kind, the worst first."""
        return [f"{kind.severity}: {self.describe(kind)}" for kind in self.kinds(*severities)]

    def messages(self) -> list[tuple[int, str]]:
        """Level and text of a line of the log for each kind that does not refuse training."""
        return [
            (logging.INFO if kind.severity == NOTE else logging.WARNING, self.describe(kind))
            for kind in self.kinds(DROPPED, WARNING, NOTE)
        ]

    def dropped(self) -> str:
        """What is left out, such as "; 2 images without objects dropped"; "" if nothing is."""
        kinds = self.kinds(DROPPED)
        return "".join(f"; {self.count(kind):,} {kind.what} dropped" for kind in kinds)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of a table, one row for each kind, the worst first."""
        header = ["", "number", "what", "the first of them", "what to do"]
        return header, [
            [
                kind.severity,
                f"{self.count(kind):,}" if kind.counted else "",
                kind.what,
                "; ".join(self.places(kind)),
                kind.remedy,
            ]
            for kind in self.kinds()
        ]

    def refuse(self, address: str) -> None:
        """Raises ValueError with all that refuses training, if there is anything.

        Args:
            address: address of the data, for the message.
        """
        kinds = self.kinds(REFUSED)
        if kinds:
            problems = [self.describe(kind) for kind in kinds]
            listed = problems[0] if len(problems) == 1 else "".join(f"\n- {p}" for p in problems)
            raise ValueError(
                f"Annotations must be sound before anything is trained on them. Received in "
                f"{address!r}: {listed}"
            )
