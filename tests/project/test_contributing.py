"""The backbone, the mechanism and the task of CONTRIBUTING.md work as they stand there."""

import re

import pytest
import tensorflow as tf
import tiny

from moco_tf.evaluation.task import evaluate, find
from moco_tf.pretraining import build, mechanism

OWN = {
    "model__backbone": "my_backbone:convnet",
    "model__stem": "imagenet",
    "model__mechanism": "my_mechanism:InBatch",
    "model__shuffle": False,
}


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """The modules of CONTRIBUTING.md, where Python finds them."""
    text = (tiny.ROOT / "CONTRIBUTING.md").read_text()
    for name in ("my_backbone", "my_mechanism", "my_task"):
        (code,) = re.findall(rf"```python\n# {name}\.py\n(.*?)```", text, re.DOTALL)
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)


def test_all_three_in_one_run_and_its_evaluation(modules, tmp_path):
    config = tiny.config(**OWN)
    assert mechanism.find(config.model.mechanism).__name__ == "InBatch"
    strategy = tf.distribute.get_strategy()
    assert tiny.pretrain(tmp_path / "run", strategy, **OWN) == 4
    task = "my_task:Brightness"
    settings = find(task).Config()
    record = evaluate(task, settings, str(tmp_path / "run"), str(tmp_path / "evaluation"), strategy)
    assert record["metrics"]["accuracy"]["value"] > 0.6


def test_a_field_that_a_backbone_does_not_take_is_refused(modules):
    config = tiny.config(**{**OWN, "model__stem": "cifar"})
    with pytest.raises(ValueError, match=r"`--config.model.stem` must be imagenet with the backb"):
        build.make_backbone(config.model)
