"""What a run says of its sizes before the first step."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf.data.sources import from_arrays
from moco_tf.pretraining import build
from moco_tf.training import plan


@pytest.mark.parametrize(
    "queue, symmetric, size",
    [(49, False, 16), (400, True, 32), (48, False, None)],
)
def test_a_queue_of_more_keys_than_images_is_warned_of(queue, symmetric, size, caplog):
    config = tiny.config(model__queue_size=queue, model__symmetric=symmetric)
    layout = plan.make_layout(config, tf.distribute.get_strategy(), bn_group_size=4)
    source = from_arrays(np.zeros((48, 4, 4, 3), np.uint8))
    with caplog.at_level(logging.WARNING):
        build.describe(config, layout, source)
    if size is None:
        assert not caplog.records
    else:
        assert f"{queue} keys of 48 images" in caplog.text
        assert f"--config.model.queue_size={size}." in caplog.text


def test_fewer_images_than_a_batch_are_refused_with_the_largest_batch():
    config = tiny.config(batch_size=64, model__queue_size=64)
    with pytest.raises(ValueError, match="50 images, batch_size=64.*to at most 48"):
        plan.make_plan(config, 50, None, bn_group_size=4)
