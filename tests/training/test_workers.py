"""Several worker processes agree on when to stop, where to resume, and what was bad."""

import shutil
import signal
import time

import pytest
import tiny
from pictures import images_with_three_bad_ones


def workers(workdirs, **flags):
    """Commands of one run's workers."""
    return lambda i: tiny.command(workdirs[i], "--strategy=multiworker", **flags)


@pytest.mark.slow
def test_a_preempted_worker_stops_all_and_a_workdir_of_its_own_is_refused(tmp_path):
    shared = [tmp_path / "shared"] * 2
    flags = {"stop_after_steps": 200, "log_every_steps": 1, "monitor.source": "off"}

    def preempt(processes):
        path, deadline = shared[0] / "metrics.jsonl", time.time() + 200
        while not path.exists() or len(path.read_text().splitlines()) < 4:
            assert time.time() < deadline
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGTERM)  # not the chief

    outputs = tiny.run_workers(2, workers(shared, **flags), code=143, meanwhile=preempt)
    assert all("Stopped by SIGTERM after step" in output for output in outputs)
    assert not any("Trained" in output for output in outputs)

    workdirs = [tmp_path / "shared", tmp_path / "own"]
    outputs = tiny.run_workers(2, workers(workdirs, **flags), code=1)
    for output in outputs:
        assert "All workers must resume at the same step" in output and "Traceback" not in output


def test_bad_images_of_all_workers_count(tmp_path):
    folder = images_with_three_bad_ones(tmp_path / "images")
    flags = {"data.source": f"folder:{folder}", "data.max_bad_fraction": 0.1, "epochs": 1}
    flags |= {"stop_after_steps": 3, "log_every_steps": 3}
    tiny.run_workers(2, workers([tmp_path / "run"] * 2, **flags))
    assert tiny.metrics(tmp_path / "run")[-1]["bad_images"] == 3  # 48 images, once each


def test_a_worker_with_another_config_is_refused(tmp_path):
    def command(i):
        return tiny.command(tmp_path / "run", "--strategy=multiworker", seed=i)

    for _ in range(2):  # the second time with the chief's config there from the start
        outputs = tiny.run_workers(2, command, code=1)
        assert "here (workdir -> here): seed: 0 -> 1" in outputs[1]
        assert "must run the same config" in outputs[0] and "another one elsewhere" in outputs[0]
        assert not any("Traceback" in output for output in outputs)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.slow
def test_a_worker_with_another_version_is_refused(tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny.ROOT / "moco_tf", other / "moco_tf")
    (other / "tests" / "support").mkdir(parents=True)
    for name in ("train.py", "tests/support/launch.py", "tests/support/small_resnet.py"):
        shutil.copy(tiny.ROOT / name, other / name)
    with (other / "moco_tf" / "log.py").open("a") as file:
        file.write("# changed\n")

    def command(i):
        args = tiny.command(tmp_path / "run", "--strategy=multiworker")
        return (
            args if i == 0 else [args[0], str(other / "tests" / "support" / "launch.py"), *args[2:]]
        )

    outputs = tiny.run_workers(2, command, code=1, fresh=True)
    assert all("another one elsewhere. The versions differ." in output for output in outputs)
