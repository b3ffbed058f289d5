"""Runs in gs://: trained, killed, resumed, evaluated, converted and exported; also while it fails.

TensorFlow's own gs:// client talks to a server on this machine, see support/cloud.py.
"""

import json
import sys

import cloud
import pytest
import tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(cloud.missing()), reason=cloud.missing()),
]
FLAGS = {"epochs": 4, "stop_after_steps": 8, "checkpoint_every_steps": 2, "log_every_steps": 1}


@pytest.fixture(scope="module", params=[0, 9], ids=["", "every ninth request fails"])
def bucket(request, tmp_path_factory):
    """A `Cloud` with gs://bucket/data, and the folder of the same images."""
    folder = tiny.shapes_folder(tmp_path_factory.mktemp("images"), 60)
    with cloud.serve(tmp_path_factory.mktemp("cloud"), request.param) as server:
        for path in sorted(folder.rglob("*.png")):
            server.put(f"gs://bucket/data/{path.relative_to(folder)}", path.read_bytes())
        yield server, folder


def moco_tf(server, *arguments):
    return server.run([sys.executable, "-m", "moco_tf", *arguments])


def test_a_killed_run_goes_on_and_is_the_local_one(bucket, tmp_path):
    server, folder = bucket
    tiny.pretrain(tmp_path / "local", data__source=f"folder:{folder}/train", **FLAGS)
    args = tiny.command("gs://bucket/run", data__source="folder:gs://bucket/data/train", **FLAGS)
    server.run([*args, "--signal_at=SIGKILL@5"], code=-9)
    assert "resuming after step 4" in server.run(args)
    server.download("gs://bucket/run", tmp_path / "copy")
    tiny.assert_same_state(tmp_path / "local", tmp_path / "copy")
    tiny.assert_each_step_once(tmp_path / "copy", 8)

    # The run is evaluated on a folder and on shards made of it, and exported.
    results = []
    moco_tf(server, "convert", "folder:gs://bucket/data/train", "gs://bucket/shards", "--shards=2")
    moco_tf(server, "convert", "folder:gs://bucket/data/test", "gs://bucket/tests", "--shards=1")
    sources = {
        "folder": ("folder:gs://bucket/data/train", "folder:gs://bucket/data/test"),
        "shards": ("tfrecord:gs://bucket/shards/*", "tfrecord:gs://bucket/tests/*"),
    }
    for name, (train, test) in sources.items():
        moco_tf(
            server,
            "evaluate",
            "--task=knn",
            "--checkpoint=gs://bucket/run",
            f"--workdir=gs://bucket/knn_{name}",
            f"--config.data.train={train}",
            f"--config.data.test={test}",
            "--config.neighbours=(5,)",
        )
        server.download(f"gs://bucket/knn_{name}", tmp_path / name)
        results.append(json.loads((tmp_path / name / "results.json").read_text())["metrics"])
    assert results[0] == results[1]
    run, output = "--checkpoint=gs://bucket/run", "--output=gs://bucket/served"
    moco_tf(server, "export", run, "--format=savedmodel", output)
    server.download("gs://bucket/served", tmp_path / "served")
    assert (tmp_path / "served" / "1" / "saved_model.pb").exists()


def test_a_listing_takes_one_request_for_a_thousand_names(bucket):
    server, folder = bucket
    content = next(folder.rglob("*.png")).read_bytes()
    for i in range(2100):
        server.put(f"gs://bucket/many/{i % 7}/{i:04}.png", content)
    server.requests()
    code = "from moco_tf.data.sources import open_source as open\n"
    code += "print(open('folder:gs://bucket/many').num_examples)"
    output = server.run([sys.executable, "-c", code])
    assert output.split()[-1] == "2100"
    answered = [line for line in server.requests() if '" 200' in line]
    assert len(answered) < 20, answered
