"""Starts a script with several logical CPU devices, or with a signal at a chosen moment.

python tests/support/launch.py [--script=evaluate.py] --cpus=2 [--kill_in_save=2] FLAGS...

--script       train.py, another script in the project's root, or the name of a package
--signal_at    such as SIGTERM@5: the process sends it to itself once it has logged step 5
--kill_in_save number of the checkpoint in which the process is killed
--longest_file bytes that a file may have: what a full disk does to it
--report       write a pre-training run's report, which takes as long as training a tiny run
"""

import os
import pathlib
import resource
import runpy
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    options = {
        "--cpus": "1",
        "--kill_in_save": "0",
        "--signal_at": "",
        "--script": "train.py",
        "--longest_file": "",
        "--report": "false",
    }
    rest = []
    for arg in sys.argv[1:]:
        name, _, value = arg.partition("=")
        if name in options:
            options[name] = value
        else:
            rest.append(arg)
    sys.path.insert(0, str(ROOT))

    from moco_tf import startup  # isort: skip  # before anything imports TensorFlow
    import tensorflow as tf

    with startup.quiet():
        cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * int(options["--cpus"])
    tf.config.set_logical_device_configuration(cpu, devices)
    if options["--kill_in_save"] != "0":
        kill_in_save(int(options["--kill_in_save"]))
    if options["--signal_at"]:
        name, _, step = options["--signal_at"].partition("@")
        signal_at(int(step), signal.Signals[name])
    if options["--longest_file"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, [int(options["--longest_file"])] * 2)
    if options["--report"] != "true":
        leave_out_report()
    script = options["--script"]
    sys.argv = [str(ROOT / script), *rest]
    if script.endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(script, run_name="__main__", alter_sys=True)


def leave_out_report():
    """Ends pre-training runs without their report."""
    from moco_tf.pretraining import report

    report.write = lambda *args: None


def kill_in_save(number):
    """Kills this process in its `number`-th checkpoint, files written, pointer not yet moved."""
    from tensorflow.python.checkpoint import checkpoint_management

    original = checkpoint_management.update_checkpoint_state_internal
    count = 0

    def update(*args, **kwargs):
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    checkpoint_management.update_checkpoint_state_internal = update


def signal_at(step, number):
    """Sends this process a signal, once, when it has logged a step."""
    from moco_tf.training.callbacks import MetricsLog

    original = MetricsLog.round_end
    if number == signal.SIGINT:  # whatever started the tests may have made it ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def round_end(self, round):
        original(self, round)
        if round.last >= step:
            MetricsLog.round_end = original
            os.kill(os.getpid(), number)

    MetricsLog.round_end = round_end


if __name__ == "__main__":
    main()
