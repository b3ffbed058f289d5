"""Storage that fails now and then: reads and writes are tried again, to the same end."""

import pathlib
import subprocess

import pytest
import tiny
from pictures import images_with_three_bad_ones


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """flaky.c, compiled."""
    path = tmp_path_factory.mktemp("flaky") / "flaky.so"
    source = pathlib.Path(__file__).with_name("flaky.c")
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", path, source, "-ldl"]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip("the fake file system is built by gcc, which is not installed")
    return path


@pytest.mark.slow
def test_a_run_on_flaky_storage_ends_as_on_good_one(library, tmp_path, record_property):
    folder = images_with_three_bad_ones(tmp_path / "images")
    flags = {
        "data.source": f"folder:{folder}",
        "data.max_bad_fraction": 0.1,
        "epochs": 20,
        "stop_after_steps": 40,
        "checkpoint_every_steps": 10,
    }
    tiny.run(tiny.command(tmp_path / "good", **flags))
    log = tmp_path / "failed.log"
    environment = {"LD_PRELOAD": library, "FLAKY_EVERY": "11", "FLAKY_LOG": log}
    args = tiny.command(tmp_path / "flaky", **flags)
    environment |= {"FLAKY_DIR": tmp_path / "flaky"}
    output = tiny.run(args, fresh=True, **{k: str(v) for k, v in environment.items()})
    assert "Storage failed, trying again in 1 s" in output
    failed = log.read_text().splitlines()
    assert len(failed) > 5
    tiny.assert_same_state(tmp_path / "good", tmp_path / "flaky")
    record_property("fault", ("a call to storage fails, of a run", len(failed), len(failed), 0))


@pytest.mark.slow
def test_images_that_cannot_be_read_at_once_are_not_bad(library, tmp_path, record_property):
    folder = images_with_three_bad_ones(tmp_path / "images")
    flags = {"data.source": f"folder:{folder}", "data.max_bad_fraction": 0.1, "epochs": 20}
    flags |= {"stop_after_steps": 40}
    tiny.run(tiny.command(tmp_path / "good", **flags))
    log = tmp_path / "failed.log"
    environment = {"LD_PRELOAD": library, "FLAKY_EVERY": "50", "FLAKY_DIR": folder}
    environment |= {"FLAKY_LOG": log}
    args = tiny.command(tmp_path / "flaky", **flags)
    tiny.run(args, fresh=True, **{k: str(v) for k, v in environment.items()})
    failed = log.read_text().splitlines()
    assert len(failed) > 5
    assert (
        tiny.metrics(tmp_path / "flaky")[-1]["bad_images"]
        == (tiny.metrics(tmp_path / "good")[-1]["bad_images"])
    )
    tiny.assert_same_state(tmp_path / "good", tmp_path / "flaky")
    record_property("fault", ("an image cannot be read at once", len(failed), len(failed), 0))
