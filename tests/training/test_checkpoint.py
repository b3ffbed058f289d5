"""Checkpoints that the disk lost or changed, and a disk that takes no more."""

import contextlib
import re
import resource
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
import tiny
import tiny_fit

from moco_tf import encoders
from moco_tf.interop import training_state
from moco_tf.training import checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of eight steps, and the same one at step 6 with checkpoints of 2, 4 and 6."""
    root = tmp_path_factory.mktemp("runs")
    tiny_fit.fit(root / "half", 6, keep=3)
    shutil.copytree(root / "half", root / "whole")
    tiny_fit.fit(root / "whole", 8, keep=3)
    return root


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize(
    "file, damage",
    [
        ("index", flip),
        ("index", lambda path: path.unlink()),
        ("data-00000-of-00001", cut),
        ("data-00000-of-00001", flip),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(file, damage, whole, tmp_path, caplog):
    shutil.copytree(whole / "half", tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / f"step-6.{file}")
    with caplog.at_level("INFO", "moco_tf"):
        tiny_fit.fit(tmp_path / "run", 8, keep=3)
    assert re.search("step-6 is not whole: .* Skipping this checkpoint", caplog.text)
    assert "resuming after step 4" in caplog.text
    tiny.assert_same_state(whole / "whole", tmp_path / "run")
    assert [line["step"] for line in tiny.metrics(tmp_path / "run")] == list(range(9))
    checkpoint.read(str(tmp_path / "run" / "checkpoints" / "step-6"))  # made anew


def test_reading_a_run_changes_nothing_in_it(pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path / "run")
    cut(tmp_path / "run" / "checkpoints" / "step-4.data-00000-of-00001")
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    state = training_state.read(str(tmp_path / "run"), encoders.load(str(tmp_path / "run")).run)
    assert state.forwards == 2
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


def test_without_a_whole_one_the_run_ends_and_all_stays(whole, tmp_path):
    shutil.copytree(whole / "half", tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").glob("step-*.data*"):
        flip(path)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("step-*")}
    with pytest.raises(ValueError, match="must be whole. Received: 3 damaged, and no whole one"):
        tiny_fit.fit(tmp_path / "run", 8, keep=3)
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("step-*")}


def test_what_a_disk_changes_as_it_writes_is_found_at_once(whole, tmp_path, monkeypatch):
    shutil.copytree(whole / "half", tmp_path / "run")
    save = tf.train.CheckpointManager.save

    def damaged(self, **options):
        path = save(self, **options)
        flip(tmp_path / "run" / "checkpoints" / "step-8.data-00000-of-00001")
        return path

    monkeypatch.setattr(tf.train.CheckpointManager, "save", damaged)
    with pytest.raises(OSError, match="step-8 is not whole"):
        tiny_fit.fit(tmp_path / "run", 8, keep=3)
    monkeypatch.undo()
    tiny_fit.fit(tmp_path / "run", 8, keep=3)
    tiny.assert_same_state(whole / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_full_disk_ends_in_a_message_and_the_last_checkpoint_is_good(tmp_path):
    flags = {"stop_after_steps": 4, "checkpoint_every_steps": 2}
    tiny.pretrain(tmp_path / "run", **flags)
    before = tiny.saved(tmp_path / "run")
    command = tiny.command(
        tmp_path / "run", "--longest_file=20000", **flags | {"stop_after_steps": 8}
    )
    output = tiny.run(command, code=1)
    assert "Traceback" not in output
    assert "large" in output or "space" in output
    for name, value in tiny.saved(tmp_path / "run").items():
        np.testing.assert_array_equal(value, before[name])


def test_a_full_disk_leaves_the_last_checkpoint_and_network(whole, tmp_path):
    shutil.copytree(whole / "half", tmp_path / "run")
    before = tiny.saved(tmp_path / "run")
    network = (tmp_path / "run" / "network.keras").read_bytes()
    with files_of_at_most(10_000), pytest.raises(OSError, match="too large"):
        tiny_fit.fit(tmp_path / "run", 8, keep=3)
    assert (tmp_path / "run" / "network.keras").read_bytes() == network
    for name, value in tiny.saved(tmp_path / "run").items():
        np.testing.assert_array_equal(value, before[name])
    tiny_fit.fit(tmp_path / "run", 8, keep=3)
    tiny.assert_same_state(whole / "whole", tmp_path / "run")


@contextlib.contextmanager
def files_of_at_most(size):
    """Longer files cannot be written, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("workdir", ["/proc/nothing", "/dev/null/run"])
def test_a_workdir_that_cannot_be_made_ends_in_a_message(workdir):
    output = tiny.run(tiny.command(workdir), code=1)
    assert workdir[:9] in output and "Traceback" not in output
