"""Names of the classes of YOLO's sets, from data.yaml, classes.txt or obj.names."""

import ast
import dataclasses
import os
import re

import tensorflow as tf

FILES = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
LEVELS = 3  # folders to look in: DIR and the two above it


@dataclasses.dataclass(frozen=True)
class Names:
    """What a set says of its lines.

    Attributes:
        classes: names of the classes.
        values_after_box: numbers that follow a box, for keypoints; 0 without keypoints.
    """

    classes: tuple[str, ...]
    values_after_box: int = 0


def find(root: str, address: str) -> Names:
    """Reads the names of a folder's classes.

    Args:
        root: folder of the set.
        address: address of the set, for messages.

    Raises:
        ValueError: if there is no file of names, or it cannot be read.
    """
    folder = os.path.abspath(root) if "://" not in root else root.rstrip("/")
    for _ in range(LEVELS):
        for name in FILES:
            path = os.path.join(folder, name)
            if tf.io.gfile.exists(path):
                return _read(path)
        folder = os.path.dirname(folder)
    raise ValueError(
        f"The classes must be named by {', '.join(FILES)}, in the folder or the next two above it. "
        f"Received: {address!r}, without such a file. Write one name a line into classes.txt."
    )


def _read(path):
    with tf.io.gfile.GFile(path) as file:
        text = file.read()
    if not path.endswith((".yaml", ".yml")):
        return Names(tuple(line.strip() for line in text.strip().splitlines()))
    classes = tuple(_yaml_list(text, "names"))
    if not classes:
        raise ValueError(
            f"data.yaml must have names, a list of the classes. Received: {path!r}, without it."
        )
    shape = [int(number) for number in _yaml_list(text, "kpt_shape")]
    return Names(classes, shape[0] * shape[1] if len(shape) == 2 else 0)


# An item of a list or dict in brackets, quoted or not, after its number if it has one.
ITEM = r"""\s*(?:\d+\s*:)?\s*("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,\n]+)"""


def _yaml_list(text, key):
    """The items of a list or of a dict from 0 on, in the forms that YOLO's tools write.

    These are `key: [a, b]`, also over several lines, `key: {0: a, 1: b}`, and a block of lines
    `- a` or `0: a`. Python's own library has no reader of YAML.
    """
    text = re.sub(r"(^|\s)#[^\n]*", r"\1", text)  # comments
    flow = re.search(rf"^{key}:\s*[\[{{](.*?)[\]}}]", text, re.M | re.S)
    if flow:
        return [_scalar(item) for item in re.findall(ITEM, flow[1]) if item.strip()]
    block = re.search(rf"^{key}:[ \t]*\n((?:(?:[ \t]+|-)[^\n]*(?:\n|\Z)|\n)*)", text, re.M)
    lines = [line.strip() for line in (block[1] if block else "").splitlines() if line.strip()]
    return [_scalar(re.sub(r"^(-|\d+\s*:)\s*", "", line)) for line in lines]


def _scalar(text):
    """Text of an item, without its quotes."""
    text = text.strip()
    if text[:1] == "'" and text[-1:] == "'":
        return text[1:-1].replace("''", "'")
    return ast.literal_eval(text) if text[:1] == '"' else text
