"""How commands end."""

import sys

import pytest
import tiny

SCRIPT = """
import atexit
import sys
from moco_tf.commands import script
atexit.register(print, "A user's handler ran")
try:
    script.run(lambda argv: sys.exit({code}), script.only_flags)
finally:
    print("Destroys TensorFlow's objects", end="")
"""


@pytest.mark.parametrize(
    "code, exit_code, shown",
    [("None", 0, ""), ("3", 3, ""), ("'Wrong flag'", 1, "Wrong flag\n")],
)
def test_a_command_alone_ends_without_waiting_for_threads(tmp_path, code, exit_code, shown):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(code=code))
    output = tiny.run([sys.executable, str(file)], code=exit_code)
    assert output == f"{shown}A user's handler ran\n"


def test_a_worker_destroys_what_others_wait_for(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(SCRIPT.format(code=3))
    shown = tiny.run([sys.executable, str(file)], code=3, TF_CONFIG="{}")
    assert shown == "Destroys TensorFlow's objects"
