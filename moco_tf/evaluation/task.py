"""Evaluation tasks: base class, lookup by name, and the steps from config to results.json.

A task is a class in a module of its own: evaluation/NAME.py, NAME/task.py in the package, or any
module of yours, which `--task=my_module:MyTask` names.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import pkgutil
import time
from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as tf

import moco_tf
from moco_tf import distribute, encoders, schema, spelling
from moco_tf.backbones import precision
from moco_tf.evaluation import results
from moco_tf.training import checkpoint as checkpoints
from moco_tf.training import in_use
from moco_tf.training.config import check_type


class Task:
    """Base class of evaluation tasks; subclasses define `test` and the methods that they need.

    Args:
        config: checked config of the class `Config`.
        checkpoint: path of the encoder, see `encoders.load`.
        workdir: folder of the evaluation, local or gs://.
        strategy: strategy that it runs on.

    Attributes:
        name: name for `--task`.
        Config: dataclass of the task's configs, with at least `deterministic: bool`.
        TITLES: title of each metric, such as {"top1": "top-1"}.
        trains: whether it trains step by step, and so can be stopped and resumed.
        needs_float32: whether NVIDIA's TF32, which would change its results, is off in `test`.
        loaded: `encoders.Loaded` of the encoder.

    Example:
        class Brightness(Task):
            name = "brightness"
            Config = BrightnessConfig
            TITLES = {"error": "mean error"}

            def prepare(self):
                self.images, self.brightness = open_my_images(self.config.data)

            def test(self):
                error = my_regression(self.loaded.encoder.backbone, self.images, self.brightness)
                return {"metrics": {"error": {"value": error}}, "protocol": "ridge regression"}
    """

    name: ClassVar[str]
    Config: ClassVar[type]
    TITLES: ClassVar[dict[str, str]] = {}
    trains: ClassVar[bool] = False
    needs_float32: ClassVar[bool] = False

    def __init__(
        self, config: Any, checkpoint: str, workdir: str, strategy: tf.distribute.Strategy
    ):
        self.config = config
        self.workdir = workdir
        self.strategy = strategy
        with strategy.scope():
            self.loaded = self.load(checkpoint)

    @classmethod
    def check(cls, config: Any):
        """Checks every field of a config; raises ValueError with the field, the rule, the value."""
        check_type(config, cls.Config, cls.name)
        schema.check(config)

    def load(self, checkpoint: str) -> encoders.Loaded:
        """Loads the encoder; called in the strategy's scope."""
        return encoders.load(checkpoint)

    def prepare(self):
        """Opens the data and builds the model; raises ValueError before any work."""

    def train(self, stop: Callable[[], bool]):
        """Trains, or resumes; raises `loop.Stopped` if `stop()` asks for it."""

    def test(self) -> dict[str, Any]:
        """Tests the encoder.

        Returns:
            The task's part of results.json, with at least
                metrics: dict from a name of `TITLES` to a dict of value and perhaps interval;
                protocol: the protocol in a few words.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `test`.")

    def report(self, record: dict[str, Any]):
        """Writes report.html and other files; called on the chief after `test`.

        Args:
            record: content of results.json.
        """

    @classmethod
    def export(cls, workdir: str, output: str) -> str:
        """Writes what a finished evaluation has trained as a SavedModel, OUTPUT/VERSION/.

        Args:
            workdir: folder of the evaluation, local or gs://.
            output: folder, local or gs://.

        Returns:
            Path of the version's folder.

        Raises:
            ValueError: if the evaluation is not finished, or has trained nothing to serve.
        """
        raise ValueError(
            "The workdir of an evaluation to export must be of a task that trains what can be "
            f"served. Received: {workdir!r}, of --task={cls.name}."
        )


def evaluate(
    task: str,
    config: Any,
    checkpoint: str,
    workdir: str,
    strategy: tf.distribute.Strategy,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Runs or resumes an evaluation.

    Args:
        task: name of the task, see `find`.
        config: config of the task.
        checkpoint: path of the encoder, see `encoders.load`.
        workdir: folder of the evaluation, local or gs://.
        strategy: strategy to run on, from `strategies.make_strategy`.
        stop: function that says whether to stop early; tasks that train call it.

    Returns:
        Content of results.json.

    Raises:
        ValueError: for a config, data or an encoder that cannot be used.
        loop.Stopped: if it was asked to stop before the end.

    Example:
        evaluate("knn", Knn(), "runs/v2", "runs/v2_knn", tf.distribute.get_strategy())
    """
    began = time.time()
    task_class = find(task)
    task_class.check(config)
    run = task_class(config, checkpoint, workdir, strategy)
    run.prepare()
    made_by = {"task": task, "encoder": run.loaded.digest, **schema.to_dict(config)}
    with in_use.held(workdir, strategy):
        checkpoints.claim_workdir(made_by, workdir, strategy)
        run.train(stop)
        with precision.without_tf32() if task_class.needs_float32 else contextlib.nullcontext():
            record = results.record(task, task_class.TITLES, config, run.loaded, began, run.test())
            if distribute.is_chief(strategy):
                results.write(workdir, record)
                run.report(record)
    return record


def find(name: str) -> type[Task]:
    """Finds a task by its name, such as "knn", or import path, such as "my_module:MyTask".

    Raises:
        ValueError: if there is none; the message lists the package's own.
    """
    module, colon, attribute = name.partition(":")
    if colon:
        task = _attribute(module, attribute)
    else:
        places = (f"moco_tf.evaluation.{name}", f"moco_tf.{name}.task")
        task = next((task for place in places for task in _tasks_in(place)), None)
    if task is None:
        raise ValueError(
            f"`--task` must be one of {', '.join(names())}, or the import path of yours, such as "
            f"my_module:MyTask. Received: {name!r}. {spelling.hint(name, names())}".rstrip()
        )
    return task


def find_of(workdir: str) -> type[Task] | None:
    """The task of an evaluation's workdir; None for any other folder or file.

    Raises:
        ValueError: if the workdir is of a task that cannot be imported.
    """
    path = os.path.join(workdir, "config.json")
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        name = json.load(file).get("task")
    return find(name) if name else None


def names() -> list[str]:
    """Names of the package's own tasks."""
    modules = [m.name for m in pkgutil.iter_modules(importlib.import_module(__package__).__path__)]
    rooms = [m.name for m in pkgutil.iter_modules(moco_tf.__path__) if m.ispkg]
    places = [f"{__package__}.{name}" for name in modules]
    places += [f"moco_tf.{name}.task" for name in rooms if name != "evaluation"]
    return sorted({task.name for place in places for task in _tasks_in(place)})


def _tasks_in(place):
    """The tasks that a module defines; none if there is no such module."""
    try:
        spec = importlib.util.find_spec(place)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        return []
    module = importlib.import_module(place)
    classes = [x for x in vars(module).values() if isinstance(x, type) and x.__module__ == place]
    return [x for x in classes if issubclass(x, Task) and hasattr(x, "name")]


def _attribute(module, attribute):
    """The task of an import path; None if there is none."""
    try:
        value = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError:
        return None
    return value if isinstance(value, type) and issubclass(value, Task) else None
