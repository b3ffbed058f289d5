"""Report of a data check: tables for the terminal, and an HTML page with pictures."""

import dataclasses
from collections.abc import Iterable, Sequence

from moco_tf.data.findings import REFUSED, SEVERITIES, Findings
from moco_tf.reports import pages

TITLES = {
    "refused": "Training is refused because of",
    "dropped": "Training leaves out",
    "warning": "Look at",
    "note": "Worth to know",
}


@dataclasses.dataclass(frozen=True)
class Check:
    """What a check of a data set gives.

    Attributes:
        address: address of the data.
        findings: what is wrong, left out or odd.
        facts: names and texts, such as ("images", "364, 640 x 480 px").
        header: header of the table of classes.
        rows: rows of the table of classes.
        pictures: HTML elements of images with their annotations.
    """

    address: str
    findings: Findings
    facts: Sequence[tuple[str, str]] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Iterable[str] = ()

    @property
    def is_refused(self) -> bool:
        """Whether training would be refused."""
        return bool(self.findings.kinds(REFUSED))

    @property
    def verdict(self) -> str:
        """One sentence on whether the set can be trained on."""
        if self.is_refused:
            return "Training would be refused."
        others = len(self.findings.kinds("warning", "dropped"))
        return f"Can be trained on{f', with {others} kinds of findings' if others else ''}."


def text(check: Check) -> str:
    """The check as plain text for a terminal."""
    width = max((len(name) for name, _ in check.facts), default=0)
    parts = [check.address, "\n".join(f"{name:<{width}}  {fact}" for name, fact in check.facts)]
    if check.rows:
        parts.append(columns(check.header, check.rows))
    for severity in SEVERITIES:
        kinds = check.findings.kinds(severity)
        if kinds:
            lines = [TITLES[severity]]
            for kind in kinds:
                count = f"{check.findings.count(kind):,} " if kind.counted else ""
                lines.append(f"  {count}{kind.what}")
                lines += [f"      {place}" for place in check.findings.places(kind)]
                lines += [f"    {kind.remedy}"] if kind.remedy else []
            parts.append("\n".join(lines))
    return "\n\n".join([*(part for part in parts if part), check.verdict])


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of plain text: the first column to the left, the others to the right."""
    lines = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def page(check: Check) -> str:
    """The check as an HTML page in one file."""
    parts = [pages.table(["", ""], check.facts)]
    if check.findings.kinds():
        parts += ["<h2>Findings</h2>", pages.table(*check.findings.rows())]
    if check.rows:
        parts += ["<h2>Classes</h2>", pages.table(check.header, check.rows)]
    parts += ["<h2>Images, as they are read</h2>", *check.pictures]
    return pages.page(f"check: {check.address}", check.verdict, parts)
