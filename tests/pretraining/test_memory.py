"""About how much memory a step needs is said before it is run, and by how much too large it is."""

import logging
import math
import re
import types

import keras
import pytest
import tiny

from moco_tf import MoCo
from moco_tf.backbones import heads, resnet
from moco_tf.backbones.encoder import Encoder
from moco_tf.data.batch_layout import BatchLayout
from moco_tf.pretraining import build, memory

GB = 10**9


@pytest.fixture(scope="module")
def tiny_model():
    return build.make_model(tiny.config())


def test_a_row_of_resnet_50_needs_about_what_was_measured():
    # 107 MB, measured as the difference of steps of 24 and 8 rows, see the README.
    backbone = resnet.resnet50(bn_group_size=8)
    model = types.SimpleNamespace(encoder_q=types.SimpleNamespace(backbone=backbone))
    config = tiny.config(data__image_size_px=224, monitor__resize_px=None)
    assert memory.row_bytes(model, config) == pytest.approx(107e6, rel=0.1)
    config.mixed_bfloat16 = True
    config.model.symmetric = True
    assert memory.row_bytes(model, config) == pytest.approx(107e6, rel=0.1)


def test_what_any_batch_needs_is_four_encoders_and_the_queue():
    images = keras.Input((4, 4, 3))
    backbone = keras.Model(images, keras.layers.Flatten()(images))
    model = MoCo(Encoder(backbone, heads.linear(5)), queue_size=100)
    weights = 48 * 5 + 5
    wanted = 4 * (4 * weights + 100 * 5 + 1)
    fixed = memory.fixed_bytes(model, BatchLayout(8)) - memory.OVERHEAD
    assert fixed == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(
    "share, level, advice",
    [
        (2.0, logging.INFO, "GB are available."),
        (0.6, logging.WARNING, "gradient_accumulation=2, .*--config.batch_size=8, or a smaller"),
        (0.3, logging.WARNING, "gradient_accumulation=4, .*--config.batch_size=4, or a smaller"),
    ],
)
def test_what_fits_is_said(share, level, advice, tiny_model, caplog):
    config, layout = tiny.config(), BatchLayout(16, group=4)
    rows = 16 * memory.row_bytes(tiny_model, config)
    available = memory.fixed_bytes(tiny_model, layout) + share * rows
    with caplog.at_level(logging.INFO):
        memory.check(tiny_model, config, layout, memory.Machine(100 * GB, available))
    (record,) = caplog.records
    assert record.levelno == level
    assert re.search(advice, record.getMessage())


def test_a_step_that_no_memory_of_the_machine_holds_is_refused(tiny_model):
    rows = 2**17
    config, layout = tiny.config(), BatchLayout(rows, group=4)
    need = memory.fixed_bytes(tiny_model, layout) + rows * memory.row_bytes(tiny_model, config)
    total = memory.Machine(0.8 * need, 0.7 * need)
    with pytest.raises(
        ValueError,
        match=f"more than the {total.total / GB:.1f} GB that this machine has. Use --config",
    ):
        memory.check(tiny_model, config, layout, total)
    memory.check(tiny_model, config, layout, memory.Machine(0.95 * need, 0.7 * need))
    memory.check(tiny_model, config, layout, None)


def test_the_memory_of_this_machine_is_known_on_linux():
    machine = memory.machine()
    if machine is not None:
        assert 0 < machine.available <= machine.total < math.inf
