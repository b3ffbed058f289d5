"""A mechanism from outside the package is found, trained, saved and resumed as ours are."""

import keras
import numpy as np
import pytest
import tiny

from moco_tf.pretraining import mechanism

OWN = {"model__mechanism": "own_mechanism:InBatch", "gradient_accumulation": 1}


@pytest.mark.slow
def test_it_trains_resumes_and_its_encoder_is_saved(tmp_path):
    tiny.pretrain(tmp_path / "whole", **OWN)
    for steps in (2, 4):
        tiny.pretrain(tmp_path / "parts", **OWN, stop_after_steps=steps)
    tiny.assert_same_state(tmp_path / "whole", tmp_path / "parts")
    assert np.isfinite(tiny.losses(tmp_path / "whole")).all()
    encoder = keras.models.load_model(tmp_path / "whole" / "encoder.keras")
    assert encoder.output_shape == (None, 8)


def test_its_chance_is_of_its_negatives_and_what_it_does_not_take_is_refused():
    assert mechanism.chance_loss(tiny.config(**OWN)) == np.log(16)
    with pytest.raises(ValueError, match=r"`--config.model.symmetric` must be false with model.m"):
        tiny.config(**OWN, model__symmetric=True)
    for name in ("nope", "own_mechanism:Nope", "no_such_module:InBatch"):
        with pytest.raises(ValueError, match="one of queue, .*memory_bank, .*, or"):
            tiny.config(model__mechanism=name)
