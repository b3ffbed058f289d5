"""Configs are found by name or path, and shipped with the package."""

import runpy
import sys
import types

import pytest
import tiny

from moco_tf import presets


def test_a_config_is_found_by_name_and_by_the_path_it_has_in_a_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no configs/
    shipped = str(tiny.ROOT / "configs" / "eval" / "knn.py")
    for name in ("eval/knn", "eval/knn.py", "configs/eval/knn.py", "./configs/eval/knn.py"):
        assert presets.find(name) == shipped
    assert presets.find("moco_v2:800ep") == str(tiny.ROOT / "configs" / "moco_v2.py:800ep")
    assert presets.load("moco_v2:800ep").epochs == 800


def test_a_file_of_ones_own_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "moco_v2.py").write_text("def get_config(x='own'):\n    return x\n")
    assert presets.load("configs/moco_v2.py") == "own"
    assert presets.load("configs/moco_v2.py:other") == "other"
    assert presets.load("moco_v2").epochs == 200


def test_a_config_that_is_nowhere_is_answered_by_those_there_are():
    with pytest.raises(ValueError, match=r"eval/knn, .*quickstart, .*Received: configs/nope.py"):
        presets.find("configs/nope.py")


def test_installed_configs_are_preferred_to_a_folder_beside_the_package(tmp_path, monkeypatch):
    (tmp_path / "moco_tf" / "configs" / "eval").mkdir(parents=True)
    (tmp_path / "moco_tf" / "configs" / "eval" / "mine.py").touch()
    monkeypatch.setattr(presets, "PACKAGE", tmp_path / "moco_tf")
    assert presets.names() == ["eval/mine"]


def test_the_wheel_has_every_folder_of_configs(monkeypatch):
    given = {}
    setuptools = types.SimpleNamespace(
        setup=given.update, find_packages=lambda include: ["moco_tf", "moco_tf.data"]
    )
    setuptools.setup = lambda **options: given.update(options)
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
    monkeypatch.chdir(tiny.ROOT)
    runpy.run_path("setup.py")
    folders = {path.parent for path in (tiny.ROOT / "configs").rglob("*.py")}
    packages = {".".join(("moco_tf", *f.relative_to(tiny.ROOT).parts)) for f in folders}
    assert packages | {"moco_tf", "moco_tf.data"} == set(given["packages"])
    assert given["package_dir"] == {"moco_tf.configs": "configs"}
