"""The training loop: a run that is asked to stop, several steps a call, and traces."""

import numpy as np
import pytest
import tiny
import tiny_fit

from moco_tf.training import loop


def test_a_run_that_is_asked_to_stop_saves_and_raises(tmp_path):
    with pytest.raises(loop.Stopped, match="after step 1, saved") as stopped:
        tiny_fit.fit(tmp_path / "run", stop=lambda: True)
    assert stopped.value.step == 1
    assert (tmp_path / "run" / "checkpoints" / "step-1.index").exists()

    assert tiny_fit.fit(tmp_path / "run") == 8
    assert tiny_fit.fit(tmp_path / "whole") == 8
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "run")


def test_a_request_that_comes_with_the_last_step_changes_nothing(tmp_path):
    assert tiny_fit.fit(tmp_path, 1, stop=lambda: True) == 1


@pytest.mark.parametrize("replicas", [1, 2])
def test_several_steps_per_call_equal_single_ones(replicas, mirrored, tmp_path):
    """Three at a time, by which neither the epochs nor the steps between checkpoints divide."""
    tiny_fit.fit(tmp_path / "single")
    every = {"log_every_steps": 100, "checkpoint_every_steps": 7}
    options = {"strategy": mirrored(replicas), "steps_per_call": 3}
    tiny_fit.fit(tmp_path / "several", **options, **every)
    tiny.assert_each_step_once(tmp_path / "several", 8)
    single, several = (tiny.losses(tmp_path / name) for name in ("single", "several"))
    assert single[-1] < single[0]
    np.testing.assert_allclose(several, single, rtol=1e-5)


def test_nothing_is_traced_again_after_the_first_step(tmp_path, monkeypatch):
    calls = []
    make_call = loop.make_call
    monkeypatch.setattr(
        loop, "make_call", lambda *args: calls.append(make_call(*args)) or calls[-1]
    )
    tiny_fit.fit(tmp_path)
    assert len(tiny.losses(tmp_path)) == 8
    assert [call.experimental_get_tracing_count() for call in calls] == [1]
