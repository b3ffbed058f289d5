"""Writes docs/protocols.md, the hyper-parameters of all configs beside those of their references.

    python tools/protocols.py

docs/protocols/*.toml hold the references' figures. A line there covers one hyper-parameter of some
configs; `find_lines` raises if a value in configs/ has no line, so that no number changes unseen.
"""

import dataclasses
import fnmatch
import itertools
import re
import tomllib
from collections.abc import Iterable
from typing import Any

from hyper_parameters import LEFT_OUT, ROOT, constants, read_configs, values_of

DOCUMENT = ROOT / "docs" / "protocols.md"
DATA = ROOT / "docs" / "protocols"

SECTIONS = (
    "pretraining",
    "moco_v3",
    "moco_v3_vit",
    "ablations",
    "classification",
    "detection",
    "segmentation",
    "code",
)

INTRODUCTION = """# Protocols

Every hyper-parameter of every config in `configs/`, beside its reference: the official code
(facebookresearch/moco and moco-v3), detectron2, mmselfsup or the papers. `python
tools/protocols.py` writes this page from the configs and from the references' figures in
`docs/protocols/`; a test fails if a number changes and no line covers it, or if this page is out of
date.

Values are those that a run uses, also where they are defaults. Learning rates are those of the
config's own batch. A value that is `none` is taken from the pre-training run. A config's section
lists what is not already in the table of all configs above it. The paper is arXiv:1911.05722,
version 3; "v2" is arXiv:2003.04297 and "v3" arXiv:2104.02057. The papers' figures were read in
copies of their texts, all others in the named files or in forks' copies of them. `moco/`,
`moco-v3/` and `detectron2/` are repositories of facebookresearch, `mmselfsup/` of open-mmlab.
"""


@dataclasses.dataclass(frozen=True)
class Line:
    """One hyper-parameter of some configs, and its reference.

    Attributes:
        section: name of the file in docs/protocols that it comes from.
        source: repository and file, or paper and section.
        field: name of the hyper-parameter, as in `values_of`.
        configs: patterns of the names of configs that it covers, with spaces between.
        name: field in the source.
        value: value there, in the units of our field; None without a reference.
        here: value in the configs, if it differs.
        why: reason for the difference.
    """

    section: str
    source: str
    field: str
    configs: str
    name: str = ""
    value: Any = None
    here: Any = None
    why: str = ""

    def __post_init__(self):
        is_equal = self.here is None
        if is_equal == bool(self.why) or self.here == self.value:
            raise ValueError(
                "A line must have `here` and `why` if the value differs from the reference's, and "
                f"neither if it is equal. Received: {self}."
            )

    def covers(self, config: str, field: str, value: Any) -> bool:
        """Whether it is the line of a config's field with this value."""
        expected = self.value if self.here is None else self.here
        return (
            self.field == field
            and any(fnmatch.fnmatchcase(config, pattern) for pattern in self.configs.split())
            and type(expected) is type(value)
            and expected == value
        )


def read_lines() -> list[Line]:
    """The lines of docs/protocols/*.toml."""
    lines = []
    for section in SECTIONS:
        for group in _read(section)["reference"]:
            common = {name: value for name, value in group.items() if name != "lines"}
            lines += [Line(section, **common | line) for line in group["lines"]]
    return lines


def _read(section):
    return tomllib.loads((DATA / f"{section}.toml").read_text())


def find_lines(values: dict[str, dict[str, Any]], lines: Iterable[Line]) -> dict:
    """The line of each hyper-parameter.

    Args:
        values: hyper-parameters by config and name.
        lines: all lines.

    Returns:
        Dict from (config, name) to its `Line`.

    Raises:
        ValueError: for hyper-parameters without a line or with several, and for unused lines.
    """
    line_of = {}
    problems = []
    used = set()
    for config, fields in values.items():
        for field, value in fields.items():
            covering = [line for line in lines if line.covers(config, field, value)]
            used |= set(map(id, covering))
            if len(covering) == 1:
                line_of[config, field] = covering[0]
            else:
                problems.append(f"{config}: {field} = {value!r} has {len(covering)} lines")
    problems += [f"nothing matches {line}" for line in lines if id(line) not in used]
    if problems:
        raise ValueError(
            "Each hyper-parameter of a config must have one line in docs/protocols/*.toml, and "
            "each line a hyper-parameter. Correct the value, or add its reference. Received:\n"
            + "\n".join(problems)
        )
    return line_of


def document() -> str:
    """The text of docs/protocols.md."""
    values = {name: values_of(config) for name, config in read_configs().items()} | constants()
    lines = find_lines(values, read_lines())
    parts = [INTRODUCTION]
    for section in SECTIONS:
        data = _read(section)
        parts += [f"## {data['title']}\n", *([f"{data['note']}\n"] if "note" in data else [])]
        configs = [c for c in values if any(lines[c, f].section == section for f in values[c])]
        shared = _shared(configs, values, lines) if len(configs) > 1 else []
        if shared:
            parts += [
                "### All configs of this section\n",
                _table(configs[0], shared, values, lines),
            ]
        for config in configs:
            rest = [field for field in values[config] if field not in shared]
            parts += [f"### `{config}`\n", _table(config, rest, values, lines)]
    parts.append("## Left out\n\nFields that are no hyper-parameters:\n")
    for title, names in LEFT_OUT.items():
        parts.append(f"- {title}: {', '.join(f'`{name}`' for name in names)}")
    return "\n".join(parts) + "\n"


def _shared(configs, values, lines):
    """Fields whose line is the same for all configs."""
    return [
        field
        for field in values[configs[0]]
        if len({id(lines.get((config, field))) for config in configs}) == 1
    ]


def _table(config, fields, values, lines):
    rows = ["| hyper-parameter | here | reference | there | |", "|---|---|---|---|---|"]
    for field in fields:
        line = lines[config, field]
        source = re.sub(r"^(facebookresearch|open-mmlab)/(\S+), ", r"\2/", line.source)
        source = f"{source}: {line.name}" if line.name else source
        there = "" if line.value is None else _text(line.value)
        here = _text(values[config][field])
        rows.append(f"| `{field}` | {here} | {source} | {there} | {line.why or 'equal'} |")
    return "\n".join(rows) + "\n"


def _text(value):
    """A value as the page shows it; long progressions by their ends."""
    if not isinstance(value, list):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if len(value) > 4 and len({b - a for a, b in itertools.pairwise(value)}) == 1:
        return f"{value[0]}, {value[1]}, ... {value[-1]}"
    return ", ".join(map(_text, value)) or "none"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
