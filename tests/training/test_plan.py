"""How a batch is laid out on replicas, and the message for one that does not divide."""

import types

import pytest

from moco_tf.training.plan import make_layout


def config(**sizes):
    return types.SimpleNamespace(**sizes)


def test_the_bn_group_is_the_micro_batch_unless_given(mirrored):
    strategy = mirrored(2)
    layout = make_layout(config(batch_size=16), strategy, gradient_accumulation=2)
    assert (layout.batch, layout.hosts, layout.replicas, layout.group) == (16, 1, 2, 4)
    assert make_layout(config(batch_size=16), strategy).group == 8
    assert make_layout(config(batch_size=16), strategy, bn_group_size=2).group == 2


@pytest.mark.parametrize(
    "sizes, options, message",
    [
        (
            {"batch_size": 5},
            {},
            "`--config.batch_size` must be a multiple of 2: 2 replicas.*4 or 6",
        ),
        (
            {"batch_size": 4, "test_batch_size": 3},
            {},
            "`--config.test_batch_size` must be a multiple of 2.*Received: test_batch_size=3",
        ),
        (
            {"batch_size": 10},
            {"gradient_accumulation": 3, "bn_group_size": 2},
            "multiple of 12: .* x gradient_accumulation=3 x bn_group_size=2.*=10. Use 12",
        ),
    ],
)
def test_a_batch_that_does_not_divide_is_refused_with_sizes_that_do(
    sizes, options, message, mirrored
):
    with pytest.raises(ValueError, match=message):
        make_layout(config(**sizes), mirrored(2), **options)
