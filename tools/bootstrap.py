"""Makes .venv and installs the project into it; quick when nothing changed.

    python3 tools/bootstrap.py [EXTRA]

Uses the standard library alone, and says plainly what is missing.
"""

import hashlib
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
NEEDED_GB = 5


def main():
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        fail(
            f"Python 3.11, 3.12 or 3.13 is needed. Received: {sys.version.split()[0]} "
            f"({sys.executable}).\nName another one: make PYTHON=python3.12 ..."
        )
    stamp = VENV / ("installed-" + (extra or "base"))
    files = [(ROOT / name).read_bytes() for name in ("setup.cfg", "setup.py", "pyproject.toml")]
    parts = [*files, sys.version.encode(), str(ROOT).encode()]
    wanted = hashlib.sha256(b"".join(parts)).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted and PYTHON.exists():
        return
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < NEEDED_GB and not PYTHON.exists():
        fail(f"{NEEDED_GB} GB of free disk are needed in {ROOT}. Received: {free:.1f} GB.")
    print("Installing into .venv (a few minutes the first time) ...", flush=True)
    try:
        run(sys.executable, "-m", "venv", str(VENV), what="make a virtual environment")
        target = f".[{extra}]" if extra else "."
        run(str(PYTHON), "-m", "pip", "install", "--quiet", "--editable", target, what="install")
    except KeyboardInterrupt:
        fail("Interrupted; the same command goes on.")
    stamp.write_text(wanted)


def run(*command, what):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        output = done.stdout.decode(errors="replace").strip().splitlines()
        hint = "See the lines above."
        text = "\n".join(output)
        if "ensurepip" in text:
            hint = "Python's venv module is incomplete: on Debian, apt install python3-venv."
        elif "No space left" in text:
            hint = f"The disk is full: {NEEDED_GB} GB are needed."
        elif "No matching distribution" in text or "Could not find a version" in text:
            hint = (
                "pip reaches no package index, or one without a package named above: look at the "
            )
            hint += "network and at pip's settings."
        fail("\n".join(output[-15:]) + f"\n\nCould not {what}. {hint}")


def fail(message):
    sys.exit("\n" + message)


if __name__ == "__main__":
    main()
