"""Flags of the commands that make a run."""

import types

import pytest

from moco_tf.commands import run_flags


@pytest.mark.parametrize(
    "name, received", [(None, r"runs/v2\.$"), ("a.txt", r"Received: '.*a\.txt', a file\.$")]
)
def test_a_workdir_is_a_folder(name, received, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("")
    value = name and str(tmp_path / name)
    monkeypatch.setattr(run_flags, "WORKDIR", types.SimpleNamespace(value=value))
    with pytest.raises(ValueError, match=f"`--workdir` must name a folder.*{received}"):
        run_flags.require_workdir()


def test_a_workdir_may_be_new(tmp_path, monkeypatch):
    value = str(tmp_path / "new")
    monkeypatch.setattr(run_flags, "WORKDIR", types.SimpleNamespace(value=value))
    assert run_flags.require_workdir() == value
