"""A wheel built from the tree installs into a clean environment and trains the quickstart."""

import os
import pathlib
import subprocess
import sys
import sysconfig
import venv

import pytest
import tiny

SMALL = (
    "--config.model.width=4",
    "--config.batch_size=32",
    "--config.model.queue_size=64",
    "--config.data.jit_compile=false",
    "--config.monitor.source=off",
    "--config.stop_after_steps=2",
)


def run(folder, *command):
    """Runs a command in a folder, without this checkout on Python's path; returns its output."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.mark.slow
def test_an_installed_wheel_trains_the_quickstart(tmp_path):
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path)
    run(tmp_path, sys.executable, "-m", "pip", *build, tiny.ROOT)
    (wheel,) = tmp_path.glob("moco_tf-*.whl")
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    run(tmp_path, sys.executable, "-m", "pip", f"--python={home / 'bin' / 'python'}", "install",
        "--quiet", "--no-deps", wheel)  # fmt: skip
    # The dependencies are this environment's. A path file adds them, but not the checkout, which
    # this environment may have installed as editable.
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    where = run(empty, home / "bin" / "python", "-c", "import moco_tf; print(moco_tf.__file__)")
    assert pathlib.Path(where.strip()).is_relative_to(packages)
    command = home / "bin" / "moco-tf"
    assert "pre-train an encoder with MoCo" in run(empty, command)
    output = run(empty, command, "train", "--config=quickstart", "--workdir=runs/q", *SMALL)
    assert "Trained 2 steps." in output and (empty / "runs/q/encoder.keras").exists()
