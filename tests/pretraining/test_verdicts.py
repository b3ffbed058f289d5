"""A report says what each curve should look like, and shows in red where it does not."""

import numpy as np
import pytest

from moco_tf.pretraining import report
from moco_tf.pretraining.config import Config
from moco_tf.pretraining.verdicts import judge
from moco_tf.reports import pages

CHANCE = np.log(65537)  # of the default config: K = 65,536, one side


def judged(name, *y, **model):
    config = Config()
    for field, value in model.items():
        setattr(config.model, field, value)
    return judge(name, np.arange(len(y)), np.array(y, float), config)


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("loss", (9.0, 10.5, 6.0), (9.0, 10.5, 0.995 * CHANCE)),
        ("top1", (0.9, 0.1, 0.6), (0.9, 0.1, 4 / 65537)),
        ("knn", (0.2, 0.4), (0.4, 0.2)),
        ("queue_fill", (0.5, 1.0), (0.5, 0.9)),
        ("key_effective_rank", (2.0, 40.0), (30.0, 1.5)),
        ("effective_rank", (20.0, 30.0), (20.0, 9.0)),
    ],
)
def test_a_curve_is_judged_by_its_end(name, good, bad):
    assert judged(name, *good).is_good and not judged(name, *bad).is_good


def test_a_loss_that_is_not_a_number_is_wrong():
    assert not judged("loss", 9.0, float("nan")).is_good


def test_the_loss_of_a_symmetric_run_is_twice_as_large():
    assert judged("loss", 1.5 * CHANCE, symmetric=True).is_good
    assert f"far below chance, {2 * CHANCE:.2f}" in judged("loss", 1.0, symmetric=True).text


def test_the_end_of_a_long_curve_is_the_mean_of_its_last_twentieth():
    y = [10.0] * 95 + [4.0, 5.0, 6.0, 5.0, 5.0]
    assert "It ended at 5.00" in judged("loss", *y).text


def test_a_single_knn_accuracy_and_an_unknown_curve_are_not_judged():
    assert judged("knn", 0.1).is_good
    assert judged("momentum", 0.1) is None and judged("loss") is None


def test_keys_that_nearly_collapsed_are_told_the_limit_and_a_way_out():
    assert "ended at 1.5, below 3.5: train longer" in judged("key_effective_rank", 30.0, 1.5).text
    assert "below" not in judged("key_effective_rank", 30.0, 30.0).text


def test_every_panel_of_a_report_has_a_caption():
    assert all(judged(name, 0.5, 0.5) for name in report.PANELS)


def test_pages_show_what_is_wrong_in_red_and_fold_long_parts():
    caption = pages.captioned("<img>", "a < b", is_good=False)
    assert "<figcaption class=bad>a &lt; b</figcaption>" in caption
    assert "class=bad" not in pages.captioned("<img>", "a")
    page = pages.page("t", "h", [pages.folded("Config", "<pre>x</pre>")])
    assert "<details><summary>Config</summary><pre>x</pre></details>" in page
    assert "width=device-width" in page and "prefers-color-scheme:dark" in page
