"""Ablations as users start them: killed, resumed, with a variant that diverges; and refusals."""

import json
import re
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
import tiny

from moco_tf import schema
from moco_tf.commands import ablate
from moco_tf.pretraining import ablation
from moco_tf.pretraining import report as reports
from moco_tf.pretraining.ablation import Ablation, variants

TINY = {
    **tiny.FLAGS,
    "monitor.source": "synthetic:shapes:test,synthetic:shapes:test",
    "monitor.resize_px": 16,
    "log_every_steps": 1,
}
FILE = """
from moco_tf.pretraining.ablation import Ablation, base

def get_config(data="fabrics"):
    runs = {
        "calm": {"model.momentum": 0.5},
        "wild": {"optimizer.learning_rate": 1e30},
        "long": {"stop_after_steps": 24, "checkpoint_every_steps": 8},
    }
    return Ablation("Three runs", base(data), runs)
"""


def command(config, workdir, *more):
    flags = [f"--config.base.{name}={value}" for name, value in TINY.items()]
    launch = str(tiny.ROOT / "tests" / "support" / "launch.py")
    script = [sys.executable, launch, "--script=moco_tf", "ablate"]
    return [*script, f"--config={config}", f"--workdir={workdir}", *flags, *more]


def test_the_variants_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(reports, "write", lambda *args: None)
    root = tiny.shapes_folder(tmp_path / "data", 60)
    fields = {"data.source": f"folder:{root}/train", "monitor.source": "auto"}
    fields |= {"monitor.resize_px": 16, "stop_after_steps": 2, "log_every_steps": 1}
    wild = {"optimizer.learning_rate": 1e30, "monitor.source": "off"}
    runs = {"calm": {"model.momentum": 0.5}, "wild": wild}
    workdir = tmp_path / "run"
    compared = Ablation("Two", tiny.config(**fields), runs)
    ablation.ablate(compared, str(workdir), tf.distribute.get_strategy())
    results = json.loads((workdir / "results.json").read_text())
    assert results["calm"]["config"]["model"]["momentum"] == 0.5
    assert [step for step, _ in results["calm"]["knn"]] == [0, 2]
    assert re.search(r"\| wild +\| - .*\| diverged", (workdir / "table.md").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_an_ablation_that_was_ended_goes_on_to_the_whole_table(name, tmp_path):
    config, workdir = tmp_path / "three.py", tmp_path / "run"
    config.write_text(FILE)
    args = command(config, workdir)

    output = tiny.run_to_signal(args, name, 12)
    assert "Variant wild diverged. Loss and gradients must be finite" in output
    if name == "SIGTERM":
        assert "The same command resumes" in output
    first = (workdir / "calm" / "metrics.jsonl").stat().st_mtime_ns

    output = tiny.run(args)
    for name in ("calm (1 of 3)", "wild (2 of 3)"):
        assert f"Variant {name} already has results" in output
    assert "resuming after step" in output
    assert (workdir / "calm" / "metrics.jsonl").stat().st_mtime_ns == first
    assert [line["step"] for line in tiny.metrics(workdir / "long")] == list(range(25))

    table = (workdir / "table.md").read_text()
    assert table in output and str(workdir / "report.html") in output
    rows = [re.split(r" *\| *", line)[1:-1] for line in table.splitlines() if line[:1] == "|"]
    assert [row[0] for row in rows] == ["variant", "---", "calm", "wild", "long"]
    calm, wild, long = rows[2:]
    assert re.fullmatch(r"\d+\.\d%", calm[1]) and calm[5] != "diverged" != long[5]
    assert wild[1] == wild[3] == "-" and wild[5] == "diverged"
    assert "kNN before training:" in table and "Diverged:" in table
    results = json.loads((workdir / "results.json").read_text())
    assert [step for step, _ in results["long"]["knn"]] == [0, 24]
    assert float(long[3]) == pytest.approx(tiny.losses(workdir / "long")[-20:].mean(), abs=1e-3)
    assert results["calm"]["config"]["model"]["momentum"] == 0.5
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "http" not in page

    refused = tiny.run([*args, "--config.base.model.dim=4"], code=1)
    assert "made by another config" in refused and "--config.base.model.dim: 8 -> 4" in refused


@pytest.mark.parametrize(
    "runs, message",
    [
        ({"a": {"model.nope": 1}}, "Variant 'a': An override must name a field.*'model.nope'"),
        ({"a": {"nope.momentum": 1}}, "must name a field.*Received: 'nope.momentum'"),
        ({"a": {"model": 1}}, "must name a field.*Received: 'model'"),
        (
            {"a": {"model.momentum": 2.0}},
            r"'a': `--config.base.model.momentum` must be in \[0",
        ),
        (
            {"a": {"model.momentum": "x"}},
            "'a': `--config.base.model.momentum` must be a finite",
        ),
        ({"a/b": {}}, "name of a variant must be.*Received: 'a/b'"),
    ],
)
def test_a_variant_that_cannot_be_is_refused_by_name(runs, message):
    with pytest.raises(ValueError, match=message):
        variants(Ablation("", tiny.config(), runs))


def test_a_variant_changes_neither_the_base_nor_another():
    base = tiny.config()
    configs = variants(Ablation("", base, {"a": {"model.momentum": 0.5}, "b": {"seed": 3}}))
    assert [c.model.momentum for c in configs.values()] == [0.5, base.model.momentum]
    assert [c.seed for c in configs.values()] == [0, 3] and base.seed == 0


def test_a_users_mistake_ends_in_a_message(tmp_path):
    config = tiny.ROOT / "configs" / "ablations" / "momentum.py"
    output = tiny.run(command(f"{config}:mnist", tmp_path / "new"), code=1)
    assert "must be fabrics or cifar10. Received: 'mnist'" in output and "Traceback" not in output
    assert not (tmp_path / "new").exists()


def test_a_recipe_is_no_ablation(monkeypatch):
    monkeypatch.setattr(ablate.run_flags, "CONFIG", types.SimpleNamespace(value=tiny.config()))
    with pytest.raises(ValueError, match="`--config` must name an ablation"):
        ablate.check([])


def test_a_run_that_ends_at_chance_is_noted(tmp_path):
    config = tiny.config()
    for loss, note in ((np.log(41), "at chance"), (3.0, "")):
        line = {"step": 10, "loss": loss, "images_per_second": 32.0}
        (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        result = ablation._result(config, str(tmp_path), diverged=False)
        assert result["note"] == note and result["seconds"] == 5.0 and result["knn"] == []
        assert result["config"] == schema.to_dict(config)
