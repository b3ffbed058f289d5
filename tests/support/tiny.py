"""A run so small that many of them can be tested, and ways to start it."""

import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys

import forked
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from moco_tf.data.sources import synthetic
from moco_tf.pretraining import report as reports
from moco_tf.pretraining import run as pretraining
from moco_tf.pretraining.config import check

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "quickstart.py"  # the tiny run is this one, but for FLAGS
DATA = ROOT.parent / "shared" / "data"
FLAGS = {
    "data.source": "synthetic:shapes",
    "data.image_size_px": 16,
    "data.recipe": "moco:v1",
    "data.jit_compile": False,  # compiling takes longer than such a run
    "model.backbone": "small_resnet:two_blocks",
    "model.backbone_options": (),
    "model.width": 4,
    "model.stem": "cifar",
    "model.dim": 8,
    "model.queue_size": 40,
    "model.temperature": 0.1,
    "model.bn_group_size": 4,
    # Small: topologies round differently, and on the other side of one ReLU a gradient is another
    # by 1 %. With .01 that is .1 of the loss a few steps later.
    "optimizer.learning_rate": 1e-4,
    "monitor.source": "off",
    "monitor.every_epochs": 2,
    "monitor.neighbours": 200,
    "batch_size": 16,
    "epochs": 1,
    "stop_after_steps": 4,
    "log_every_steps": 2,
    "checkpoint_every_steps": 100,
}


def config(**overrides):
    """The tiny config; a field of a part is given as part__field."""
    settings = runpy.run_path(str(CONFIG))["get_config"]()
    for name, value in {**FLAGS, **_dotted(overrides)}.items():
        *parts, last = name.split(".")
        part = settings
        for name in parts:
            part = getattr(part, name)
        setattr(part, last, value)
    check(settings)
    return settings


def pretrain(workdir, strategy=None, *, report=False, stop=lambda: False, **overrides):
    """Runs or resumes a tiny run in this process; returns its last step.

    Args:
        workdir: folder of the run.
        strategy: `tf.distribute.Strategy`; None for one device.
        report: write its report.html, too, which takes half as long as all else.
        stop: as for `run.pretrain`.
        overrides: fields of the config, those of a part as part__field.
    """
    strategy = strategy or tf.distribute.get_strategy()
    with pytest.MonkeyPatch.context() as patch:
        if not report:
            patch.setattr(reports, "write", lambda *args: None)
        return pretraining.pretrain(config(**overrides), str(workdir), strategy, stop)


def command(workdir, *more, cpus=1, **overrides):
    """The command line of a tiny run, as a user would start it."""
    flags = [f"--config.{k}={v}" for k, v in {**FLAGS, **_dotted(overrides)}.items()]
    launch = str(ROOT / "tests" / "support" / "launch.py")
    script = [sys.executable, launch, f"--cpus={cpus}"]
    return [*script, f"--config={CONFIG}", f"--workdir={workdir}", *flags, *more]


def start(args, fresh=False, **environment):
    """Starts a Python command in a process in the project's root, its output kept together.

    Args:
        args: its command line.
        fresh: by an interpreter of its own, as a user's; else forked off, see forked.py.
        environment: more of it.
    """
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment}
    if not fresh:
        return forked.Process(args[1:], ROOT, env)
    return subprocess.Popen(
        args, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(args, code=0, fresh=False, **environment):
    """Runs a command to its end, checks its exit code and returns its output; as `start`."""
    process = start(args, fresh, **environment)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output[-4000:]
    return output


def run_to_signal(args, name, step):
    """Runs a command of `launch.py` that gets a signal once it has logged a step.

    Returns:
        Its output.
    """
    code = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}[name]
    return run([*args, f"--signal_at={name}@{step}"], code=code)


def run_workers(count, make_args, code=0, meanwhile=None, fresh=False):
    """Runs `count` processes as the workers of one cluster on this machine; returns outputs.

    Args:
        count: number of workers.
        make_args: from a worker's index to its command.
        code: the exit code that each must have.
        meanwhile: called with the processes while they run.
        fresh: as in `start`.
    """
    processes = start_workers(count, make_args, fresh)
    if meanwhile:
        meanwhile(processes)
    outputs = [p.communicate(timeout=500)[0] for p in processes]
    for process, output in zip(processes, outputs):
        assert process.returncode == code, output[-4000:]
    return outputs


def start_workers(count, make_args, fresh=False):
    """Starts what `run_workers` runs: a list of processes."""
    ports = []
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
        ports.append(s.getsockname()[1])
    for s in sockets:
        s.close()
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [
        start(
            make_args(i),
            fresh,
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
        )
        for i in range(count)
    ]


def shapes_folder(root, count=300):
    """A folder with train/ and, a third of all, test/, of generated images in class folders."""
    images, labels = synthetic.shapes(count, seed=0)
    for i, (image, label) in enumerate(zip(images, labels)):
        path = root / ("test" if i % 3 == 0 else "train") / synthetic.NAMES[label]
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path / f"{i:03}.png")
    return root


def metrics(workdir):
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (pathlib.Path(workdir) / "metrics.jsonl").open()]


def assert_each_step_once(workdir, steps):
    """The log of a run has a line for each step from 0 to `steps`, in order."""
    assert [line["step"] for line in metrics(workdir)] == list(range(steps + 1))


def losses(workdir):
    """The loss of each step."""
    return np.array([line["loss"] for line in metrics(workdir) if "loss" in line])


def saved(workdir):
    """All arrays in the newest checkpoint, by name."""
    reader = tf.train.load_checkpoint(str(pathlib.Path(workdir) / "checkpoints"))
    names = [n for n in reader.get_variable_to_shape_map() if "OBJECT_GRAPH" not in n]
    return {n: reader.get_tensor(n) for n in names if not n.startswith("save_counter")}


def queue(workdir):
    """The queue in the newest checkpoint."""
    (name,) = [n for n in saved(workdir) if n.startswith("model/queue/")]
    return saved(workdir)[name]


def assert_same_state(a, b):
    """Two runs' newest checkpoints are equal bit for bit."""
    a, b = saved(a), saved(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def _dotted(overrides):
    return {name.replace("__", "."): value for name, value in overrides.items()}
