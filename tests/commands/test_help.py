"""--help shows flags and the schema, and what a --config file sets; none parses as none."""

import sys

import pytest
import tiny
from absl import flags

from moco_tf import schema
from moco_tf.commands import config_flag, did_you_mean, help
from moco_tf.pretraining.config import Config


def test_help_shows_every_field_with_value_range_and_meaning():
    text = help.text(["train.py", "--help"], Config())
    assert "--config.model.queue_size=65536\n      K, number of negatives" in text
    assert "(an integer, positive, or none)" in text and "(one of linear, mlp, mlp_bn2" in text
    assert "--config.monitor, kNN accuracy of the encoder during training." in text


def test_help_shows_what_a_config_sets():
    text = help.text(["train.py", "--help", "--config=moco_v1"], Config())
    assert "--config.optimizer.milestones_epochs=120,160\n" in text
    assert "--config.model.head=linear\n" in text and "configs/moco_v1.py" in text
    text = help.text(["ablate", "-h", "--config", "ablations/momentum:cifar10"])
    assert "--config.base.batch_size=512\n" in text and "--config.base.model.dim=128\n" in text


def test_commands_answer_help_from_any_folder(tmp_path, monkeypatch):
    output = tiny.run([sys.executable, str(tiny.ROOT / "train.py"), "--help"])
    assert "python train.py --config=" in output and "--config.batch_size=256" in output
    assert "--workdir=none" in output
    nobody_reads = f"{sys.executable} train.py --help | true"
    assert tiny.run(["bash", "-c", nobody_reads], fresh=True) == ""
    knn = [sys.executable, str(tiny.ROOT / "evaluate.py"), "--help", "--task=knn"]
    assert "--config.neighbours=200,100,20,10\n" in tiny.run(knn)


@pytest.fixture
def parse(monkeypatch):
    """Function from a command line to the config that it gives."""

    def parse(*argv):
        values = flags.FlagValues()
        monkeypatch.setattr(sys, "argv", ["train.py", *argv])
        flag = config_flag.define("Recipe.", values)
        values(["train.py", *argv])
        return flag.value

    return parse


def test_none_is_a_value_on_the_command_line(parse):
    config = parse("--config=quickstart", "--config.model.width=none", "--config.epochs=3")
    assert config.model.width is None and config.epochs == 3
    config = parse("--config=quickstart", "--config.model.width=8", "--config.data.data_dir=none")
    assert config.model.width == 8 and config.data.data_dir is None
    config = parse("--config=moco_v2:800ep", "--config.optimizer.warmup_epochs=2")
    assert config.epochs == 800 and config.optimizer.warmup_epochs == 2


@pytest.mark.parametrize(
    "name, message",
    [
        ("configs/nope.py", "one of the shipped configs: .*quickstart.*configs/nope.py"),
        ("transfer/coco_mask_rcnn_c4:3x", "the file has no variant '3x'"),
        ("ablations/momentum:mnist", "fabrics or cifar10. Received: 'mnist'"),
    ],
)
def test_a_config_that_is_not_there_ends_in_a_message(parse, name, message):
    with pytest.raises((flags.Error, KeyError), match=message):
        parse(f"--config={name}")


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("config.data.sorce", "config.data.source"),
        ("config.batchsize", "config.batch_size"),
        ("config.lr", "config.optimizer.learning_rate"),
        ("lr", "config.optimizer.learning_rate"),
        ("data.source", "config.data.source"),
        ("config.backbone", "config.model.backbone"),
        ("model.backbone", "config.model.backbone"),
        ("queue_size", "config.model.queue_size"),
        ("workdirs", "workdir"),
    ],
)
def test_a_mistyped_flag_is_told_what_it_may_have_meant(typed, meant):
    known = [f"config.{field.name}" for field in schema.fields(Config())]
    assert did_you_mean.suggestions(typed, [*known, "workdir", "strategy"]) == [meant]


def test_a_flag_like_no_other_gets_no_suggestion():
    assert did_you_mean.suggestions("config.zzzz", ["config.epochs", "workdir"]) == []
