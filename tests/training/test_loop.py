"""The training loop: a run that is asked to stop."""

import pytest
import tiny

from moco_tf.training.loop import Stopped


def test_a_run_that_is_asked_to_stop_saves_and_raises(tmp_path):
    with pytest.raises(Stopped, match="after step 1, saved") as stopped:
        tiny.pretrain(tmp_path / "run", stop=lambda: True, report=True)
    assert stopped.value.step == 1
    assert (tmp_path / "run" / "checkpoints" / "step-1.index").exists()
    assert not (tmp_path / "run" / "report.html").exists()

    assert tiny.pretrain(tmp_path / "run") == 4
    assert tiny.pretrain(tmp_path / "whole") == 4
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "run")


def test_a_request_that_comes_with_the_last_step_changes_nothing(tmp_path):
    assert tiny.pretrain(tmp_path, stop=lambda: True, stop_after_steps=1, report=True) == 1
    assert (tmp_path / "report.html").exists()
