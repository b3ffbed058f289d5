"""Quality of an encoder without labels: its scores, and what is said of them."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf import Encoder
from moco_tf.data.recipes import find
from moco_tf.data.sources import from_arrays, synthetic
from moco_tf.probes import quality


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_counts_equal_directions(rank):
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(20, rank + 1)))[0]
    basis = np.linalg.qr(np.column_stack([np.ones(20), basis]))[0][:, 1 : rank + 1]  # no mean
    rows = (basis @ np.eye(rank, 12)).astype(np.float32) + 5
    assert quality.effective_rank(rows) == pytest.approx(rank, rel=1e-3)


def test_near_duplicates_are_counted_beside_every_other_image():
    angles = np.float32([0, 0.1, 1, 1.19, 2, 2.21])  # cosine .995, .982 and .978
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert quality.near_duplicates(x) == pytest.approx(4 / 6)


def encoder(constant=False):
    keras.utils.set_random_seed(0)
    images = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(images))
    head = keras.layers.Dense(8, kernel_initializer="zeros" if constant else "glorot_uniform")
    head.build((None, 48))
    head.bias.assign(tf.ones(8) if constant else tf.zeros(8))
    return Encoder(keras.Model(images, x), head)


def measured(encoder):
    images, _ = synthetic.shapes(40, seed=0)
    return quality.Quality(
        encoder,
        from_arrays(images),
        find("moco:v1"),
        image_size_px=16,
        seed=0,
        strategy=tf.distribute.get_strategy(),
    )


def test_scores_are_of_the_same_views_each_time_and_tell_a_collapse():
    probe = measured(encoder())
    scores = probe()
    assert probe() == scores
    assert 0 < scores["alignment"] < scores["other_alignment"] < 4
    assert -4 < scores["uniformity"] < 0 and 1 < scores["effective_rank"] < 40
    collapsed = measured(encoder(constant=True))()
    assert collapsed["alignment"] == pytest.approx(0, abs=1e-6)
    assert collapsed["uniformity"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({}, "are nearer than .* at 1.80. Uniformity -3.00.* It falls if training goes wrong"),
        ({"alignment": 1.7}, "hardly nearer .* cannot tell images apart yet"),
        ({"effective_rank": 19.0}, "rank 19.0 .*40.0 at the start. Directions were lost"),
    ],
)
def test_a_sentence_says_whether_it_is_well(changes, words):
    first = {
        "alignment": 0.4,
        "other_alignment": 1.8,
        "uniformity": -3.0,
        "effective_rank": 40.0,
    }
    text = " ".join(quality.verdicts(first, first | changes))
    assert re.search(words, text)


def test_a_run_without_labels_logs_and_reports_its_quality(tmp_path):
    folder = tiny.shapes_folder(tmp_path / "shapes", 96) / "train"
    for path in list(folder.rglob("*.png")):
        path.rename(folder / f"{path.parent.name}_{path.name}")
    fields = {"monitor__source": "auto", "data__source": f"folder:{folder}"}
    tiny.pretrain(tmp_path / "run", report=True, **fields)
    lines = [line for line in tiny.metrics(tmp_path / "run") if "alignment" in line]
    assert [line["step"] for line in lines] == [0, 4]
    text = (tmp_path / "run" / "report.html").read_text()
    assert "Effective rank" in text and "views of one image" in text
    assert re.search(r"\d% of the images have a near-duplicate among the others", text)
