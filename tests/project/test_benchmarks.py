"""The benchmarks run, on workloads of seconds and without their peers; figures are not tested."""

import importlib
import json
import sys

import numpy as np
import pytest
import tiny


def benchmark(name, *flags):
    """Runs a benchmark; returns the facts of its last line."""
    script = str(tiny.ROOT / "benchmarks" / f"{name}.py")
    return json.loads(
        tiny.run([sys.executable, script, *flags], fresh=True).strip().splitlines()[-1]
    )


@pytest.mark.slow
def test_step_and_its_parts():
    flags = "--workload=tiny", "--workers=moco_tf", "--rounds=2", "--steps=1"
    (row,) = benchmark("step", *flags)["rows"]
    assert row["step"] == "moco_tf" and row["images/s"] > 0 and row["peak memory, GB"] > 0
    facts = benchmark("step", "--workload=tiny", "--profile")
    shares = {row["part"]: row["share of the step"] for row in facts["rows"]}
    assert shares.pop("whole step") == 1 and len(shares) == 7
    # The stem at 16x16, and stages at 16, 8, 4 and 2 px: 0.14 billion multiply-adds an image for
    # each forward pass; two of these, and a backward of two more.
    assert abs(facts["gflop_per_step"] / (8 * 4 * 2 * 0.14) - 1) < 0.1
    assert 0 < facts["step_share_of_matmul_ceiling"] < 1


@pytest.mark.slow
def test_pipeline(tmp_path):
    from pictures import random_image
    from PIL import Image

    for i in range(16):
        Image.fromarray(random_image(i)).save(tmp_path / f"{i}.jpg")
    flags = f"--images={tmp_path}", "--workers=host;decode", "--rounds=1"
    facts = benchmark("pipeline", *flags)
    speed = {row["pipeline"]: row["images/s a core"] for row in facts["rows"]}
    assert speed["decode"] > speed["host"] > 0
    assert facts["device_half_ms_per_view"] > 0


@pytest.mark.slow
def test_knn():
    flags = "--bank=2000", "--queries=100", "--dim=8", "--workers=moco_tf", "--rounds=2"
    assert benchmark("knn", *flags)["rows"][0]["queries/s"] > 0


@pytest.mark.slow
def test_detection():
    flags = "--backbone=resnet18", "--short_px=64"
    rows = benchmark("detection", *flags, "--rounds=1")["rows"]
    assert [row["what"] for row in rows] == ["training", "inference"]
    assert all(row["images/s"] > 0 and row["peak memory, GB"] > 0 for row in rows)
    shares = {
        row["part"]: row["share"] for row in benchmark("detection", *flags, "--profile")["rows"]
    }
    assert shares.pop("whole") == 1 and len(shares) == 7


@pytest.mark.slow
def test_step_memory():
    (row,) = benchmark("step_memory", "--only=0")["rows"]
    assert 0.5 < row["measured / estimated"] < 2


@pytest.mark.slow
def test_scaling():
    facts = benchmark("scaling", "--workload=tiny", "--rows=8")
    assert [row["replicas"] for row in facts["rows"]] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert facts["rows"][-1]["keys"] == 8 * 128 * 4


def lower(folder, *names):
    """Writes the StableHLO of programs of `tpu_programs.py` to a folder."""
    script = str(tiny.ROOT / "benchmarks" / "tpu_lower.py")
    flag = f"--programs={','.join(names)}"
    tiny.run([sys.executable, script, str(folder), flag], fresh=True)


@pytest.mark.slow
def test_a_program_lowers_for_tpu(tmp_path):
    lower(tmp_path, "linear_step")
    text = (tmp_path / "linear_step.mlir").read_text()
    assert "tensor<8x32x32x3xf32>" in text and "func.func @main" in text


@pytest.mark.slow
def test_the_pretraining_step_lowers_for_tpu_from_bytes_and_in_bfloat16(tmp_path):
    lower(tmp_path, "pretrain_step")
    text = (tmp_path / "pretrain_step.mlir").read_text()
    assert "tensor<8x16x16x3xui8>" in text and "bf16" in text and "func.func @main" in text


TPU_PYTHON = tiny.ROOT / ".venv-tpu" / "bin" / "python"
NEEDS_LIBTPU = pytest.mark.skipif(
    not TPU_PYTHON.exists(), reason="There is no .venv-tpu with libtpu; `make tpu-compile` makes it"
)


def compile_for_tpu(folder, *flags, code=0):
    """What `tpu_compile.py` says of each program of a folder, by name."""
    script = str(tiny.ROOT / "benchmarks" / "tpu_compile.py")
    output = tiny.run([str(TPU_PYTHON), script, str(folder), *flags], code=code, fresh=True)
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {row["program"]: row for row in rows}


@NEEDS_LIBTPU
@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear_step", "fcn_predict", "mask_rcnn_predict"])
def test_a_quick_selection_of_make_tpu_compile(tmp_path, name):
    lower(tmp_path, name)
    facts = compile_for_tpu(tmp_path)
    assert facts.keys() == {name} and facts[name]["gflop"] > 0 and facts[name]["hbm_gb"] > 0


@NEEDS_LIBTPU
@pytest.mark.slow
def test_a_slice_gathers_every_type_and_a_program_that_does_not_compile_is_named(tmp_path):
    (tmp_path / "broken.mlir").write_text("module { func.func @main() { nonsense } }")
    facts = compile_for_tpu(tmp_path, "--collectives", code=1)
    assert "nonsense" in facts.pop("broken")["error"]
    dtypes = ("float32", "int32", "bool", "uint8", "int64")
    assert facts.keys() == {f"all_gather_{dtype}" for dtype in dtypes}
    assert not any("error" in row for row in facts.values())


def test_annotations(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tiny.ROOT / "benchmarks")
    annotations = importlib.import_module("annotations")
    annotations.write(tmp_path / "set.json", 20, 200)
    for function in (annotations.checked, annotations.opened, annotations.opened):
        _, cpu_seconds, base, peak = annotations.measured(function, str(tmp_path), 200)
        assert cpu_seconds > 0 and peak >= base > 0


def test_search_precision(pretrained, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tiny.ROOT / "benchmarks"))
    search_precision = importlib.import_module("search_precision")
    # The nearest of each: its twin, and one of the other label; of the last, none of its own.
    angles = np.float32([0, 0, 1, 1.01, 2])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    monkeypatch.setattr(search_precision, "NEIGHBORS", 2)
    labels = dict(zip("abcde", "xxyyz", strict=True))
    assert search_precision.precision(vectors, list("abcde"), labels) == pytest.approx(0.4)
    folder = pretrained.parent / "data" / "train"
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    table = tmp_path / "labels.csv"
    table.write_text("".join(f"{path},{path.parent}\n" for path in files))
    monkeypatch.setattr("sys.argv", ["", str(folder), str(table), str(pretrained)])
    search_precision.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    titles = ["chance", "pixels of thumbnails", f"{pretrained}, untrained", str(pretrained)]
    assert [row["vectors"] for row in rows] == titles
    assert all(0 < row["precision"] <= 1 for row in rows)
