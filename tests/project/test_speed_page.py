"""docs/speed.md is made from docs/speed/*.json, which benchmarks/all.py writes."""

import importlib
import json
import sys

import harness
import pytest
import speed
import tiny

every_table = importlib.import_module("all")
SCRIPT = """
import json, sys
print("| a table |")
print(json.dumps({"title": "T", "machine": "M", "rows": [{"what": sys.argv[1], "n": 1234.5}]}))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs benchmarks/all.py over two benchmarks, of which one fails; returns what it wrote."""
    (tmp_path / "good.py").write_text(SCRIPT)
    (tmp_path / "bad.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(every_table, "FOLDER", tmp_path)
    monkeypatch.setattr(every_table, "RESULTS", tmp_path / "speed")
    tables = {
        "input": ["good.py", "{images}"],
        "step_resnet50": ["bad.py"],
        "knn": ["good.py", "x y"],
    }
    monkeypatch.setattr(every_table, "TABLES", tables)

    def run(*flags):
        names = ",".join(tables)
        monkeypatch.setattr(sys, "argv", ["all.py", "--name=here", f"--only={names}", *flags])
        with pytest.raises(SystemExit, match="step_resnet50"):
            every_table.main()
        return json.loads((tmp_path / "speed" / "here.json").read_text())

    return run


def test_the_page_is_what_the_script_writes():
    assert speed.DOCUMENT.read_text() == speed.document(), "Run: python tools/speed.py"


def test_every_table_has_a_section_and_a_script():
    assert every_table.TABLES.keys() == speed.SECTIONS.keys()
    for script, *_ in every_table.TABLES.values():
        assert (tiny.ROOT / "benchmarks" / script).exists()


def test_a_failed_benchmark_keeps_the_tables_of_the_others(run):
    results = run("--images=photos", "--note=Beside other work.")
    assert results.keys() == {"input", "knn"}
    assert results["input"]["rows"] == [{"what": "photos", "n": 1234.5}]
    assert results["input"]["command"] == "good.py DIR"
    assert results["knn"]["command"] == "good.py 'x y'"
    assert results["knn"]["note"] == "Beside other work."


def test_a_table_without_its_images_is_left_out_and_the_others_stay(run):
    run("--images=photos")
    assert run().keys() == {"input", "knn"}  # as measured before


def test_the_page_has_each_machine_under_each_table(run, tmp_path, monkeypatch):
    run("--images=photos")
    monkeypatch.setattr(speed, "DATA", tmp_path / "speed")
    page = speed.document()
    assert "## Input" in page and "T. M." in page and "| photos | 1,234 |" in page
    assert "## Detection" not in page


def test_a_table_names_the_cpu_its_flags_and_the_setting_of_onednn(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert "oneDNN off" in harness.machine() and "(" in harness.machine()
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    assert "oneDNN on" in harness.machine()


@pytest.mark.slow
def test_memory_of_the_commands():
    script = str(tiny.ROOT / "benchmarks" / "memory.py")
    flags = "--backbone=resnet18", "--image_size_px=32", "--queue_size=64"
    images = f"--images={tiny.DATA / 'flowers17'}"
    output = tiny.run([sys.executable, script, images, *flags], fresh=True)
    rows = json.loads(output.strip().splitlines()[-1])["rows"]
    assert rows[0]["command"] == "TensorFlow alone"
    assert all(row["peak, GB"] > 0.3 for row in rows) and len(rows) == 12
