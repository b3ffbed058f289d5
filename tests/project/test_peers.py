"""benchmarks/peers.py: its data, its figures, and runs of seconds; figures are not tested."""

import importlib.util
import json
import lzma
import sys

import cifar_binary
import numpy as np
import peers
import pytest
import tiny

from moco_tf import Encoder, heads, resnet
from moco_tf.data import sources

LIGHTLY = importlib.util.find_spec("lightly") is not None
NEEDS_LIGHTLY = pytest.mark.skipif(not LIGHTLY, reason="lightly is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """CIFAR-10's files with 400 records each, of which the last are compressed."""
    folder = tmp_path_factory.mktemp("cifar")
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        rows = rng.integers(0, 256, (400, 3073), np.uint8)
        rows[:, 0] %= 10
        if name.startswith("data_batch_1"):
            rows[7] = np.repeat([4, 10, 20, 30], [1, 1024, 1024, 1024])
            rows[7, 1 + 1024 + 32 * 2 + 5] = 99  # green, third row, sixth column
        (folder / name).write_bytes(rows.tobytes())
    path = folder / "test_batch.bin"
    path.with_name("test_batch.bin.xz").write_bytes(lzma.compress(path.read_bytes()))
    path.unlink()
    return folder


def test_an_image_and_its_label_are_those_of_the_record(folder):
    images, labels = cifar_binary.read(folder, "train")
    assert images.shape == (2000, 32, 32, 3) and labels[7] == 4
    assert tuple(images[7, 0, 0]) == (10, 20, 30) and tuple(images[7, 2, 5]) == (10, 99, 30)
    images, labels = cifar_binary.read(folder, "test", 5)
    assert images.shape == (5, 32, 32, 3) and labels.shape == (5,)


def test_runs_read_the_first_images_by_an_address(folder, tmp_path):
    cifar_binary.unpack(folder, tmp_path, 300)
    assert {path.name for path in tmp_path.iterdir()} == {"data_batch_1.bin", "test_batch.bin"}
    source = sources.open_source(f"cifar_binary:{tmp_path}:train:300")
    assert source.num_examples == 300
    assert source.image(7).numpy()[2, 5].tolist() == [10, 99, 30] and source.label(7) == 4
    with pytest.raises(ValueError, match="has 400 images of the split test. Received: 401"):
        cifar_binary.read(tmp_path, "test", 401)
    with pytest.raises(ValueError, match="one of train, test"):
        sources.open_source(f"cifar_binary:{tmp_path}:dev")


def test_the_first_steps_do_not_count(tmp_path):
    rounds = [{"step": 0, "knn": 0.1}, {"step": 7, "loss": 9.0}]
    rounds += [{"step": step, "images_per_second": v} for step, v in ((8, 1.0), (16, 40.0))]
    rounds += [{"step": 20, "images_per_second": 10.0}]
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in rounds))
    # 8 steps of 5 rows in a second, 4 of them in two.
    assert peers.our_speed(path, batch=5) == pytest.approx(60 / 3)


def test_a_missing_peer_is_said_and_left_out(folder, monkeypatch, capsys):
    def missing(command):
        raise RuntimeError("Traceback\nModuleNotFoundError: No module named 'lightly'\n")

    monkeypatch.setattr(peers, "finish", missing)
    monkeypatch.setattr(sys, "argv", ["peers.py", f"--data={folder}", "--peers=lightly"])
    with pytest.raises(SystemExit, match="No peer"):
        peers.main()
    assert "lightly: left out. ModuleNotFoundError: No module named" in capsys.readouterr().err


def test_a_run_without_timed_steps_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["peers.py", "--data=DIR", "--images=1024", "--batch=256"])
    with pytest.raises(SystemExit, match="more than 8 steps"):
        peers.main()


@NEEDS_LIGHTLY
@pytest.mark.parametrize("bn_groups", [1, 4])
def test_lightlys_network_has_the_weights_of_ours(bn_groups):
    import lightly_moco

    model = lightly_moco.MoCo(width=4, dim=16, bn_groups=bn_groups)
    learned = [p for p in model.parameters() if p.requires_grad]
    ours = Encoder(resnet.resnet18(stem="cifar", width=4), heads.mlp(dim=16))
    sizes = sorted(int(np.prod(w.shape)) for w in ours.trainable_variables)
    assert sorted(p.numel() for p in learned) == sizes


@NEEDS_LIGHTLY
def test_lightlys_convolutions_start_at_the_scale_of_ours():
    import lightly_moco

    learned = lightly_moco.MoCo(width=16, dim=16, bn_groups=1).backbone.parameters()
    theirs = [w.detach().numpy() for w in learned if w.ndim == 4]  # outputs x inputs x 3 x 3
    ours = resnet.resnet18(stem="cifar", width=16).trainable_variables
    ours = [v.numpy().transpose(3, 2, 0, 1) for v in ours if len(v.shape) == 4]
    scales, expected = (sorted((w.shape, w.std()) for w in kernels) for kernels in (theirs, ours))
    assert [shape for shape, _ in scales] == [shape for shape, _ in expected]
    # The smallest has 432 weights.
    np.testing.assert_allclose([s for _, s in scales], [s for _, s in expected], rtol=0.15)


@pytest.mark.slow
def test_a_run_of_each(folder):
    names = "lightly,moco_tf" if LIGHTLY else "moco_tf"
    flags = ["--seeds=1", "--images=320", "--epochs=1", "--batch=32", "--width=4"]
    script = str(tiny.ROOT / "benchmarks" / "peers.py")
    command = [sys.executable, script, f"--data={folder}", f"--peers={names}", *flags]
    facts = json.loads(tiny.run(command, fresh=True).strip().splitlines()[-1])
    assert [row["run"] for row in facts["rows"]] == names.split(",")
    for row in facts["rows"]:
        assert row["images/s"] > row["in all"] > 0 and row["CPU seconds"] > 0
        assert 0 < row["kNN %"] < 30  # noise without classes
    assert bool(facts["lightly"]) == LIGHTLY
