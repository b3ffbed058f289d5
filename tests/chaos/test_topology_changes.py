"""A run that goes on with another number of replicas, and what it keeps exactly."""

import numpy as np
import pytest
import tiny

from moco_tf.pretraining import run as pretraining
from moco_tf.training import checkpoint


@pytest.mark.slow
def test_a_run_goes_on_with_other_replicas(mirrored, tmp_path, caplog, record_property):
    """Batch and BN groups are the same on all of them, and so is the run, but for rounding."""

    def run(workdir, steps, replicas):
        config = tiny.config(stop_after_steps=steps, checkpoint_every_steps=1, epochs=1)
        with caplog.at_level("INFO", "moco_tf"):
            pretraining.pretrain(config, str(workdir), mirrored(replicas))

    numbers = [1, 2, 4, 2, 1]
    for i, replicas in enumerate(numbers):
        run(tmp_path / "changing", 3 * (i + 1), replicas)
        assert f"= {replicas} replica(s) x {16 // replicas} rows, BN groups of 4" in caplog.text
    run(tmp_path / "alone", 3 * len(numbers), 1)
    np.testing.assert_allclose(
        tiny.losses(tmp_path / "changing"), tiny.losses(tmp_path / "alone"), atol=1e-5
    )
    changing, alone = tiny.saved(tmp_path / "changing"), tiny.saved(tmp_path / "alone")
    assert changing.keys() == alone.keys()
    for name, value in alone.items():
        # Replicas other than the first have running statistics of their own, which are not saved.
        if "moving_" not in name:
            np.testing.assert_allclose(changing[name], value, atol=1e-4, err_msg=name)
    changes = len(numbers) - 1
    record_property("fault", ("resumed on 1, 2, 4, 2, 1 replicas", changes, changes, 0))


@pytest.mark.slow
def test_what_is_resumed_is_what_was_saved(mirrored, tmp_path, monkeypatch):
    """Queue, weights and velocities of every replica, to the bit."""
    config = tiny.config(stop_after_steps=3)
    pretraining.pretrain(config, str(tmp_path), mirrored(1))
    before = tiny.saved(tmp_path)
    models, restore = [], checkpoint.Checkpoints.restore

    def restored(self):
        models.append(self._model)
        return restore(self)

    monkeypatch.setattr(checkpoint.Checkpoints, "restore", restored)
    pretraining.pretrain(config, str(tmp_path), mirrored(4))  # all of its steps are done
    saved = {np.asarray(value).tobytes() for value in before.values()}
    model = models[0]
    variables = model.queue, *model.encoder_k.trainable_variables, *model.optimizer.velocities
    for variable in variables:
        replicas = mirrored(4).experimental_local_results(variable.value)
        assert len(replicas) == 4
        assert all(replica.numpy().tobytes() in saved for replica in replicas), variable.path
