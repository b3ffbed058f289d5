"""A run goes to PyTorch's file format by the command, and comes back."""

import json
import shutil
import sys

import pytest
import tensorflow as tf
import tiny

from moco_tf.evaluation import config as configs
from moco_tf.evaluation.task import evaluate


def command(name, *arguments):
    return tiny.run([sys.executable, "-m", "moco_tf", name, *map(str, arguments)])


RESNET = {"model__backbone": "resnet:resnet18"}


@pytest.fixture(scope="module")
def trained(pretrained, tmp_path_factory):
    """The workdir of a tiny run of a ResNet-18, whose layers have names in torch."""
    workdir = tmp_path_factory.mktemp("trained") / "run"
    tiny.pretrain(workdir, **RESNET, data__source=f"folder:{pretrained.parent}/data/train")
    return workdir


def imported(trained, tmp_path):
    """The file of a run, and a workdir made of it."""
    path, back = tmp_path / "a.pth.tar", tmp_path / "back"
    command("export", f"--checkpoint={trained}", "--format=torch", f"--output={path}")
    source = json.loads((trained / "config.json").read_text())["data"]["source"]
    options = tiny.command(back, **RESNET, data__source=source)
    options = [flag for flag in options if flag.startswith("--config")]
    output = command("import_torch", path, f"--output={back}", *options)
    assert "resnet18, saved by the official MoCo" in output
    assert "continue training from step 4:" in output
    return path, back


@pytest.mark.slow
def test_a_run_goes_to_torch_and_comes_back(trained, tmp_path):
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
    path, back = imported(trained, tmp_path)
    saved = torch.load(path, weights_only=True)
    assert saved["arch"] == "resnet18" and "module.encoder_k.fc.2.bias" in saved["state_dict"]
    assert saved["state_dict"]["module.encoder_q.bn1.num_batches_tracked"] == 4
    tiny.assert_same_state(trained, back)


@pytest.mark.slow
def test_what_came_back_from_torch_trains_on_and_is_evaluated(trained, tmp_path):
    pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
    path, back = imported(trained, tmp_path)
    shutil.copytree(trained, tmp_path / "trained")
    source = json.loads((trained / "config.json").read_text())["data"]["source"]
    for workdir in (tmp_path / "trained", back):
        tiny.pretrain(workdir, stop_after_steps=7, **RESNET, data__source=source)
    tiny.assert_same_state(tmp_path / "trained", back)

    # The file itself is a checkpoint to evaluate.
    metrics = []
    for checkpoint in (str(trained), str(path)):
        fields = configs.Knn()
        fields.data.train = source
        fields.data.test = fields.data.train.replace("data/train", "data/test")
        fields.data.recipe, fields.data.image_size_px, fields.data.resize_px = "moco:v1", 16, 32
        workdir = str(tmp_path / f"knn{len(metrics)}")
        strategy = tf.distribute.get_strategy()
        metrics.append(evaluate("knn", fields, checkpoint, workdir, strategy)["metrics"])
    assert metrics[0] == metrics[1]
