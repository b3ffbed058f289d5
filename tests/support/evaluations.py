"""Evaluations of a tiny run, in this process or by their command."""

import tensorflow as tf
import tiny

from moco_tf.evaluation import task as tasks

SHORT = {"batch_size": 64, "epochs": 2, "stop_after_steps": 3, "test_every_epochs": 1}
SHORT["optimizer__milestones_epochs"] = (1,)


def make(task, **overrides):
    """The checked config of a task; a field of a part is given as part__field."""
    config = tasks.find(task).Config()
    for name, value in overrides.items():
        part, _, last = name.rpartition("__")
        setattr(getattr(config, part) if part else config, last or name, value)
    tasks.find(task).check(config)
    return config


def evaluate(task, pretrained, workdir, strategy=None, **overrides):
    """Runs a task on the encoder of a run; returns what results.json holds."""
    return tasks.evaluate(
        task,
        make(task, **overrides),
        str(pretrained),
        str(workdir),
        strategy or tf.distribute.get_strategy(),
    )


def command(task, pretrained, workdir, *flags, cpus=1):
    """The command line of a task, as a user would start it."""
    launch = tiny.command(workdir, cpus=cpus)[:3]
    checkpoint = f"--checkpoint={pretrained}"
    return [*launch, "--script=evaluate.py", f"--task={task}", checkpoint, *flags]
