"""What a run says of its sizes before the first step."""

import logging

import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf.data.sources import from_arrays
from moco_tf.pretraining import build, run
from moco_tf.probes import monitor
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


def test_one_bn_group_in_all_is_warned_of(caplog):
    config = tiny.config(model__bn_group_size=None)
    layout = plan.make_layout(config, tf.distribute.get_strategy(), bn_group_size=None)
    build.describe(config, layout, from_arrays(np.zeros((48, 4, 4, 3), np.uint8)))
    assert "one BN group in all" in caplog.text and "bn_group_size, such as 2" in caplog.text


def test_fewer_images_than_a_batch_are_refused_with_the_largest_batch():
    config = tiny.config(batch_size=64, model__queue_size=64)
    with pytest.raises(ValueError, match="50 images, batch_size=64.*to at most 48"):
        plan.make_plan(config, 50, None, bn_group_size=4)


@pytest.mark.parametrize("count, left_out", [(48, None), (60, "leaves out 12 of the 60")])
def test_images_left_out_of_a_pass_are_said(count, left_out, caplog):
    config = tiny.config(model__queue_size=16)
    layout = plan.make_layout(config, tf.distribute.get_strategy(), bn_group_size=4)
    with caplog.at_level(logging.INFO):
        build.describe(config, layout, from_arrays(np.zeros((count, 4, 4, 3), np.uint8)))
    assert ("leaves out" in caplog.text) == (left_out is not None)
    assert (left_out or "") in caplog.text


@pytest.mark.parametrize(
    "fields, flag",
    [
        ({"data__source": "nope:x"}, "--config.data.source"),
        ({"monitor__source": "BANK,QUERIES"}, "--config.monitor.source"),
        ({"model__backbone": "resnet:resnet19"}, "--config.model.backbone"),
        ({"data__recipe": "moco:v9"}, "--config.data.recipe"),
    ],
)
def test_errors_name_the_field_that_was_typed(fields, flag, tmp_path):
    images = from_arrays(np.zeros((48, 4, 4, 3), np.uint8))
    config = tiny.config(**{"data__source": "synthetic:shapes", **fields})
    with pytest.raises(ValueError, match=f"^`{flag}` must be") as error:
        if "monitor__source" in fields:
            sizes = plan.Plan(images.num_examples, 3, 3, 3, monitor_every=1)
            monitor.make_scores(config, None, None, tf.distribute.get_strategy(), sizes)
        else:
            run.pretrain(config, str(tmp_path), tf.distribute.get_strategy())
    assert not list(tmp_path.iterdir()), error
