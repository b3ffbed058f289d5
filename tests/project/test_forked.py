"""A forked command is to its user what a started one is."""

import signal
import subprocess
import sys
import time

import pytest
import tiny

PROGRAM = """
import os, signal, sys, time
print(sys.argv[1:], os.environ.get("GIVEN"), __name__, os.getcwd(), flush=True)
print("to the error stream", file=sys.stderr)
how = sys.argv[1]
if how == "raise":
    raise ValueError("as asked")
if how == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    open(os.environ["GIVEN"], "w").close()
    time.sleep(100)
sys.exit(int(how))
"""


@pytest.mark.parametrize("fresh", [False, True])
def test_codes_outputs_and_signals(fresh, tmp_path):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    ready = tmp_path / "ready"

    def start(how):
        return tiny.start([sys.executable, str(script), how], fresh, GIVEN=str(ready))

    for how, code in (("0", 0), ("3", 3), ("raise", 1)):
        process = start(how)
        output = process.communicate(timeout=100)[0]
        assert process.returncode == process.poll() == code
        assert (
            f"['{how}'] {ready} __main__ {tiny.ROOT}\n" in output
            and "to the error stream" in output
        )
        assert ("Traceback" in output and "ValueError: as asked" in output) == (how == "raise")
        process.send_signal(signal.SIGKILL)  # of what has ended, nothing
    for sig, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = start("wait")
        while not ready.exists():
            time.sleep(0.01)
        ready.unlink()
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.1)
        process.send_signal(sig)
        process.communicate(timeout=100)
        assert process.returncode == code
