"""Reading and cutting a metrics.jsonl of any length: line by line, in constant memory."""

import json
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from moco_tf import storage

BLOCK_BYTES = 1 << 20
TAIL_BYTES = 1 << 16  # first read from the end of a file


def lines_of(path: str) -> Iterator[dict]:
    """The lines of a metrics.jsonl, without a last line that a kill cut short."""
    if not tf.io.gfile.exists(path):
        return
    rest = b""
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    return


def cut_after(path: str, step: int):
    """Removes the lines of steps after `step` from a metrics.jsonl; all of them for step 0.

    Reads from the end of the file to the line of the step.
    """
    if step == 0 or not tf.io.gfile.exists(path):
        storage.write_text(path, "")
        return
    size = tf.io.gfile.stat(path).length
    kept_bytes = _end_of(path, size, step)
    if kept_bytes < size:
        storage.keep_start(path, kept_bytes)


def _end_of(path, size, step):
    """Number of bytes up to the end of the last line of at most a step."""
    window = min(TAIL_BYTES, size)
    while window:
        start = size - window
        with tf.io.gfile.GFile(path, "rb") as file:
            file.seek(start)
            *lines, rest = file.read(window).split(b"\n")
        end = size - len(rest)
        for line in reversed(lines[bool(start) :]):  # the first may have begun before
            try:
                if json.loads(line)["step"] <= step:
                    return end
            except json.JSONDecodeError:
                pass  # a kill cut it short
            end -= len(line) + 1
        window = min(2 * window, size) if window < size else 0
    return 0


class Curves:
    """Curves of a metrics.jsonl for plots: each a few thousand points, however long the run.

    A point is the mean of so many successive values that the points suffice.

    Args:
        names: values to collect.
        most: largest number of points of a curve; even.

    Example:
        >>> curves = Curves(["loss"])
        >>> curves.add({"step": 1, "loss": 7.0, "top1": 0.0})
        >>> curves.points("loss")
        (array([1.]), array([7.]))
    """

    def __init__(self, names: Iterable[str], most: int = 4000):
        self._most = most
        self._curves = {name: _Curve() for name in names}

    def add(self, line: dict):
        """Adds a line of the file."""
        for name, curve in self._curves.items():
            if name in line:
                curve.add(line["step"], line[name], self._most)

    def points(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values of a curve, float64."""
        return self._curves[name].points()


class _Curve:
    def __init__(self):
        self._means = []  # (step, value), each a mean of `_width` successive ones
        self._width = 1
        self._open = []

    def add(self, step, value, most):
        self._open.append((step, value))
        if len(self._open) < self._width:
            return
        self._means.append(np.mean(self._open, axis=0))
        self._open = []
        if len(self._means) == most:
            pairs = np.reshape(self._means, [-1, 2, 2])
            self._means = list(pairs.mean(axis=1))
            self._width *= 2

    def points(self):
        rest = [np.mean(self._open, axis=0)] if self._open else []
        points = np.reshape([*self._means, *rest], [-1, 2])
        return points[:, 0], points[:, 1]
