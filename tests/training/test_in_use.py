"""Two processes cannot write to one workdir; one that is killed leaves nothing behind."""

import subprocess
import sys

import pytest
import tensorflow as tf
import tiny

from moco_tf.training import in_use

HOLDER = """
import sys, time
import tensorflow as tf
from moco_tf.training import in_use
with in_use.held(sys.argv[1], tf.distribute.get_strategy()):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_workdir_is_free_again_once_its_process_was_killed(tmp_path):
    workdir = str(tmp_path / "run")
    here = tf.distribute.get_strategy()
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, workdir], cwd=tiny.ROOT, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match="No other process may write"),
            in_use.held(workdir, here),
        ):
            pass
        holder.kill()
    with in_use.held(workdir, here):
        pass


def test_the_same_command_while_the_first_runs_is_refused(tmp_path):
    workdir = tmp_path / "run"
    tiny.pretrain(workdir, stop_after_steps=2)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    with (
        in_use.held(str(workdir), tf.distribute.get_strategy()),
        pytest.raises(ValueError, match="Ctrl-C saves first"),
    ):
        tiny.pretrain(workdir)
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert tiny.pretrain(workdir) == 4


def test_a_folder_in_a_bucket_is_neither_locked_nor_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = tf.distribute.get_strategy()
    with in_use.held("gs://bucket/run", here), in_use.held("gs://bucket/run", here):
        assert not list(tmp_path.iterdir())
