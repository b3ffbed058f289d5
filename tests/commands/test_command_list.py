"""The list of commands, --print_config, and what wrong names are answered."""

import runpy
import sys

import pytest
import tiny

from moco_tf import addresses, presets
from moco_tf.__main__ import COMMANDS, main
from moco_tf.commands import help
from moco_tf.data import recipes
from moco_tf.data.sources import open_source
from moco_tf.evaluation import task


@pytest.fixture
def started(monkeypatch, capsys):
    """Function from the words of a command line to what the package prints."""

    def start(program, *words):
        monkeypatch.setattr(sys, "argv", [program, *words])
        main()
        return capsys.readouterr().out

    return start


def test_alone_the_package_lists_its_commands(started):
    for words in ((), ("--help",), ("help",)):
        text = started("moco_tf/__main__.py", *words)
        assert text.startswith("Usage: python -m moco_tf COMMAND")
        assert all(f"  {name} " in text for name in COMMANDS)
    assert started("/usr/bin/moco-tf").startswith("Usage: moco-tf COMMAND")


def test_a_mistyped_command_is_told_the_nearest_one(started):
    with pytest.raises(SystemExit, match="no command 'evalute'. Did you mean evaluate?"):
        started("moco_tf/__main__.py", "evalute")


def test_every_command_can_be_started():
    for name in COMMANDS:
        assert (tiny.ROOT / "moco_tf" / "commands" / f"{name}.py").exists()


def test_the_console_script_starts_the_package():
    text = (tiny.ROOT / "setup.cfg").read_text()
    assert "moco-tf = moco_tf.__main__:main" in text
    module = runpy.run_path(str(tiny.ROOT / "moco_tf" / "__main__.py"))
    assert callable(module["main"])


def test_a_printed_config_gives_the_same_config_again():
    text = help.resolved(presets.load("moco_v1"))
    assert "--config.optimizer.milestones_epochs=120,160\n" in text
    assert "--config.model.head=linear\n" in text and "--config.model.width=none\n" in text
    assert help.resolved(presets.load("ablations/momentum")).startswith("--config.base.data.source")


def test_the_command_prints_its_config_and_does_nothing_else(tmp_path):
    script = [sys.executable, str(tiny.ROOT / "train.py"), "--config=quickstart"]
    more = ["--config.epochs=3", "--print_config", f"--workdir={tmp_path / 'run'}"]
    text = tiny.run([*script, *more])
    assert "--config.epochs=3\n" in text and "--config.model.head=mlp\n" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "find, typed, meant",
    [
        (presets.find, "quickstrat", "quickstart"),
        (presets.find, "configs/moco_v3.py", "moco_v2"),
        (task.find, "lineer", "linear"),
        (lambda typed: addresses.resolve(recipes, typed, "data.recipe"), "moko:v2", "moco:v2"),
    ],
)
def test_a_mistyped_value_is_told_the_nearest_one(find, typed, meant):
    with pytest.raises(ValueError, match=rf"Did you mean {meant}\?$"):
        find(typed)


def test_data_to_download_by_hand_come_with_all_instructions(tmp_path):
    with pytest.raises(ValueError) as error:
        open_source("tfds:imagenet2012", data_dir=str(tmp_path))
    for line in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "register on https://"):
        assert line in str(error.value)
