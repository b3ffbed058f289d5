"""Starts a script with several logical CPU devices, or with a kill at an awkward moment.

python tests/support/launch.py [--script=evaluate.py] --cpus=2 [--kill_in_save=2] FLAGS...
"""

import os
import pathlib
import runpy
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    options = {"--cpus": "1", "--kill_in_save": "0", "--script": "train.py"}
    rest = []
    for arg in sys.argv[1:]:
        name, _, value = arg.partition("=")
        if name in options:
            options[name] = value
        else:
            rest.append(arg)
    sys.path.insert(0, str(ROOT))

    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * int(options["--cpus"])
    tf.config.set_logical_device_configuration(cpu, devices)
    if options["--kill_in_save"] != "0":
        kill_in_save(int(options["--kill_in_save"]))
    sys.argv = [str(ROOT / options["--script"]), *rest]
    runpy.run_path(sys.argv[0], run_name="__main__")


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


if __name__ == "__main__":
    main()
