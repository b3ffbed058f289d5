"""The training loop: a run that is asked to stop."""

import pytest
import tensorflow as tf
import tiny

from moco_tf.pretraining import run as pretraining
from moco_tf.training.loop import Stopped


def test_a_run_that_is_asked_to_stop_saves_and_raises(tmp_path):
    strategy = tf.distribute.get_strategy()
    config = tiny.config(stop_after_steps=4)
    with pytest.raises(Stopped, match="after step 1, saved") as stopped:
        pretraining.pretrain(config, str(tmp_path / "run"), strategy, stop=lambda: True)
    assert stopped.value.step == 1
    assert (tmp_path / "run" / "checkpoints" / "step-1.index").exists()
    assert not (tmp_path / "run" / "report.html").exists()

    assert pretraining.pretrain(config, str(tmp_path / "run"), strategy) == 4
    assert pretraining.pretrain(config, str(tmp_path / "whole"), strategy) == 4
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "run")


def test_a_request_that_comes_with_the_last_step_changes_nothing(tmp_path):
    config, strategy = tiny.config(stop_after_steps=1), tf.distribute.get_strategy()
    assert pretraining.pretrain(config, str(tmp_path), strategy, stop=lambda: True) == 1
    assert (tmp_path / "report.html").exists()
