"""DensePose's licensed files and its score, against SciPy and cases worked by hand."""

import base64
import json
import logging
import os
import pickle
import shutil

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
from densepose_sets import CATEGORIES, mesh, person, python2_pickle, write_files, write_persons
from detection_runs import SHORT_RUN, metric_names
from detection_sets import annotation, truth, write_coco
from scipy.spatial import distance
from small_resnet import four_stages

from moco_tf.backbones import heads
from moco_tf.backbones.encoder import Encoder
from moco_tf.detection import config as configs
from moco_tf.detection import tester as testing
from moco_tf.detection.data import densepose, densepose_surface
from moco_tf.detection.data.annotations import open_annotations
from moco_tf.detection.scoring import densepose as densepose_scoring
from moco_tf.evaluation.task import evaluate

EDGES = np.linspace(0, 1, 57)
CENTRES = (EDGES[1:] + EDGES[:-1]) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("mesh") / "densepose")


@pytest.fixture(scope="module")
def surface(folder):
    return densepose_surface.load(str(folder))[1]


def cells_of(part, u, v):
    """A prediction that is the same in all cells."""
    return np.tile(np.array([part, 255 * u, 255 * v]).round().astype(np.uint8), (56, 56, 1))


def test_vertices_and_distances_are_those_of_the_files(surface):
    uv, part, twin, distances = mesh()
    # The file's order is SciPy's, counted from the last vertex.
    np.testing.assert_array_equal(
        surface.distances, distance.squareform(distances[::-1, ::-1], checks=False)[::-1]
    )
    a, b = (x.ravel() for x in np.mgrid[:80, :80])
    np.testing.assert_array_equal(surface.distance(a, b), distances[a, b])
    far = surface.distance(np.array([-1, 3, -1]), np.array([3, -1, -1]))
    assert np.isinf(far).all()
    rng = np.random.default_rng(1)
    asked, at = rng.integers(0, 25, 50), rng.uniform(0, 1, (50, 2))
    for p, place, nearest in zip(asked, at, surface.nearest(asked, at), strict=True):
        rows = np.flatnonzero(part == p)
        want = twin[rows[np.argmin(((uv[rows] - place) ** 2).sum(1))]] if p else -1
        assert nearest == want


def test_mirrored_coordinates_are_read_by_part_row_and_column(folder, tmp_path):
    symmetry, _ = densepose_surface.load(str(folder))
    assert symmetry.shape == (24, 256, 256, 2) and symmetry.dtype == np.float32
    np.testing.assert_allclose(symmetry[7, 51, 102], [1 - 102 / 255, 51 / 255], rtol=1e-6)
    points = np.zeros((1, 2, 5), np.float32)
    points[0, 0] = [10, 20, 1, 102.4 / 255, 51.4 / 255]
    mirrored = densepose.mirrored(points, np.zeros((1, 112, 112), np.uint8), 64.0, symmetry)
    mirrored = mirrored["densepose_points"].numpy()
    np.testing.assert_allclose(mirrored[0, 0], [54, 20, 1, 1 - 102 / 255, 51 / 255], rtol=1e-6)
    assert not mirrored[0, 1].any()


def test_pickles_of_other_pythons_are_read_and_others_are_refused(folder, tmp_path):
    other = tmp_path / "files"
    shutil.copytree(folder, other)
    want = densepose_surface.load(str(folder))[1].distances
    path = other / "Pdist_matrix.pkl"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"Pdist_matrix": want[:, None]}, protocol))
        np.testing.assert_array_equal(densepose_surface.load(str(other))[1].distances, want)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    evil = pickle.dumps({"Pdist_matrix": Evil()}, 2)
    whole = python2_pickle(want[:, None])
    objects = pickle.dumps({"Pdist_matrix": np.array([None, 1])}, 2)
    for content, message in (
        (evil, "asks for posix.mkdir"),
        (whole[:-9], "cannot be read"),
        (objects, "an array of 'O8'"),
        (python2_pickle(want[:-1, None]), "3159 distances"),
        (pickle.dumps({"Pdist_matrix": 3}, 2), "cannot be read"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"Pdist_matrix.pkl.*{message}.*smpl.is.tue.mpg.de"):
            densepose_surface.load(str(other))
    assert not (tmp_path / "made").exists()
    path.write_bytes(whole)
    scipy.io.savemat(other / "SMPL_SUBDIV_TRANSFORM.mat", {"index": np.arange(1, 97)[:, None]})
    with pytest.raises(ValueError, match="96 of 96 vertices, in 80 with distances"):
        densepose_surface.load(str(other))
    (other / "SMPL_subdiv.mat").unlink()
    with pytest.raises(ValueError, match="without SMPL_subdiv.mat. .*get_eval_data.sh"):
        densepose_surface.load(str(other))


def test_similarity_by_hand(surface):
    """Two points: at the first the cell says another vertex, the second is outside of the box."""
    uv, part, twin, distances = mesh()
    vertex, other = np.flatnonzero(part == 9)[:2]
    points = np.array([[20.0, 30, 9, *uv[vertex]], [90, 30, 9, *uv[vertex]]], np.float32)
    box, boxes = np.array([10.0, 10, 100, 60]), np.array([[10.0, 10, 60, 60], [10, 10, 100, 60]])
    maps = np.stack([cells_of(9, *uv[other]), cells_of(9, *uv[vertex])])
    apart = distances[twin[vertex], twin[other]]
    want = [np.exp(-(apart**2) / (2 * 0.237**2)) / 2, 1]  # part 9 is of the upper legs
    gps = densepose_scoring.similarity(points, box, maps, boxes, surface)
    np.testing.assert_allclose(gps, want, rtol=1e-6)
    nothing = np.zeros((1, 56, 56, 3), np.uint8)
    assert densepose_scoring.similarity(points, box, nothing, boxes[1:], surface) == 0


def test_between_cells_of_one_part_coordinates_are_between():
    maps = np.zeros((1, 4, 4, 3), np.uint8)
    maps[0, 1, 1], maps[0, 1, 2], maps[0, 2, 1] = [5, 100, 40], [5, 200, 80], [6, 0, 250]
    place = np.array([[[1.5, 1.5], [1.9, 1.5], [1.75, 1.75], [9, 1]]])
    part, uv = densepose_scoring._surface_at(maps, place)
    assert part.tolist() == [[5, 5, 5, 0]]
    # At the third the weights are 9, 3 (of this part), 3 (of another) and 1 (of none).
    want = [[100, 40], [140, 56], [(9 * 100 + 3 * 200) / 12, (9 * 40 + 3 * 80) / 12]]
    np.testing.assert_allclose(255 * uv[0, :3], want)


def law_cells():
    """A drawn person, as its cells are predicted without error."""
    x, y = np.meshgrid(CENTRES, CENTRES)
    part = np.where(x < 0.5, 3, 4)
    return np.stack([part, 255 * x, 255 * y], axis=-1).round().astype(np.uint8)


def test_scores(surface, tmp_path):
    """A person found, one without points, one found but at the wrong place of the body."""
    boxes = [(5, 5, 55, 60), (60, 5, 110, 60), (10, 10, 60, 70)]
    records = [
        person(1, boxes[0], 40, area=2750),
        annotation(1, boxes[1], 1),
        person(2, boxes[2], 40, 1, area=3000),
        annotation(3, (0, 0, 9, 9), 1),
    ]
    address = write_coco(tmp_path / "set", [(80, 120)] * 3, records, CATEGORIES)
    annotations = open_annotations(address, training=False, densepose=True)
    right, wrong = law_cells(), np.zeros((56, 56, 3), np.uint8)

    def prediction(*several):
        boxes, score, cells = zip(*several) if several else ((), (), ())
        return {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "score": np.array(score),
            "label": np.zeros(len(score), int),
            "densepose": np.array(cells, np.uint8).reshape(-1, 56, 56, 3),
        }

    def scores(*of_images):
        predictions = [prediction(*several) for several in of_images]
        return densepose_scoring.score(annotations, predictions, surface)

    first, bare, second = (boxes[0], 0.9, right), (boxes[1], 0.95, right), (boxes[2], 0.8, right)
    elsewhere = ((0, 0, 30, 30), 0.99, right)
    # Neither the person without points nor an image of none but such counts.
    best = scores([first, bare], [second], [elsewhere])
    for name in ("AP50", "AP75", "APm"):
        np.testing.assert_allclose(best[name], 100)
    assert np.isnan(best["APl"]) and "APs" not in best and 90 < best["AP"] <= 100
    assert best["truths"].tolist() == best["matched"].tolist() == [1, 1, 0]
    # A detection at another place than any person is wrong: precision falls to 1/2, then 2/3.
    np.testing.assert_allclose(scores([first, elsewhere], [second], [])["AP50"], 200 / 3, atol=0.1)
    # The second person's surface is missed: half the recall, at a precision of 1.
    half = scores([first, bare], [(boxes[2], 0.8, wrong)], [])
    np.testing.assert_allclose(half["AP50"], 100 * 51 / 101)
    assert half["matched"].tolist() == [1, 0, 0]
    assert scores([], [], [])["AP"] == 0


def make_config(**given):
    """A checked config of a step of training."""
    config = configs.Detection()
    given = {
        "architecture": "dc5",
        "frozen_bn": True,
        "densepose": True,
        "steps": 1,
        "masks": False,
        **given,
    }
    given |= {"optimizer.milestones_steps": (), "lowest_score": 0.0, "width_divisor": 32}
    for field, value in {**SHORT_RUN, "data.test_short_px": 64, **given}.items():
        part, _, last = field.rpartition(".")
        setattr(getattr(config, part) if part else config, last, value)
    configs.check(config)
    return config


@pytest.mark.slow
def test_a_run_with_the_files_is_scored(folder, tmp_path):
    data = {f"data.{name}": write_persons(tmp_path / name, 4) for name in ("train", "test")}
    encoder = tmp_path / "encoder.keras"
    Encoder(four_stages(4), heads.mlp(8)).save(encoder)
    config = make_config(densepose_files=str(folder), **data)
    workdir = tmp_path / "run"
    record = evaluate("detection", config, str(encoder), str(workdir), tf.distribute.get_strategy())
    assert record["metrics"].keys() == metric_names("box", "densepose")
    assert "dc5 with densepose" in record["protocol"] and "no flips" not in record["protocol"]
    saved = json.loads((workdir / "predictions.json").read_text())
    assert 30 < len(saved) <= 40 and saved[0]["uv_shape"] == [3, 56, 56]
    png = tf.io.decode_png(base64.b64decode(saved[0]["uv_data"])).numpy()
    assert png.shape == (56, 56, 3) and png[..., 0].max() <= 24
    assert "densepose AP of each class" in (workdir / "report.html").read_text()


def test_without_the_files_it_is_said_how_to_get_them(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "moco_tf")
    assert densepose_surface.load("") == (None, None)
    assert "images are not flipped" in caplog.text and "get_densepose_uv.sh" in caplog.text
    address = write_persons(tmp_path / "set", 2)
    config = make_config(**{"data.train": address, "data.test": address})
    annotations = open_annotations(address, training=False, densepose=True)
    tester = testing.Tester(config, None, None, annotations, None)
    monkeypatch.setattr(tester, "predictions", lambda title: truth(annotations))
    assert tester.outputs == ["box", "densepose"]  # predicted
    assert tester.score()[1].keys() == {"box"}


def test_predictions_are_whole_numbers():
    output = {
        "boxes": np.array([[20, 40, 60, 80]], np.float32),
        "score": np.array([0.9]),
        "label": np.array([0]),
        "densepose": np.array([[[[24, 0.5, 1.0], [0, 0, 0]]]], np.float32),
        "factor": np.array([2, 4], np.float32),
    }
    detection = testing.in_image(output, 50, 50)["densepose"]
    assert detection.dtype == np.uint8 and detection.tolist() == [[[[24, 128, 255], [0, 0, 0]]]]


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"architecture": "c4", "densepose": True},
            "`--config.densepose` must be false with architecture=c4",
        ),
        (
            {"metric": "lvis", "densepose": True},
            "`--config.densepose` must be false with metric=lv",
        ),
        ({"densepose_files": "x"}, "`--config.densepose_files` must be none without densepose"),
    ],
)
def test_configs_that_cannot_be_are_refused(given, message):
    given = {"densepose": False, "data.train": "coco:a,b", "data.test": "coco:a,b", **given}
    with pytest.raises(ValueError, match=message):
        make_config(**given)
