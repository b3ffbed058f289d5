"""What README shows works as it stands there, but for sizes."""

import pathlib
import re

import numpy as np
import tiny

from moco_tf import presets
from moco_tf.data.sources import synthetic
from moco_tf.strategies import STRATEGIES

README = (tiny.ROOT / "README.md").read_text()


def test_the_script_of_ones_own_runs(tmp_path, monkeypatch):
    monitored, loaded, code = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    assert len([line for line in code.splitlines() if line]) < 20
    smaller = {"resnet18(": "resnet18(width=4, ", "=4096": "=256", "epochs=10": "epochs=1"}
    for old, new in smaller.items():
        assert code.count(old) == 1
        code = code.replace(old, new)
    pixels, labels = synthetic.shapes(256, seed=0)
    images = pixels.astype(np.float32) / 255
    names = {"images": pixels}
    names |= {"train_images": pixels[:200], "train_labels": labels[:200]}
    names |= {"test_images": pixels[200:], "test_labels": labels[200:]}
    monkeypatch.chdir(tmp_path)
    exec(code, names)
    history = names["model"].history.history
    assert np.isfinite(history["loss"]).all() and len(history["loss"]) == 1
    assert (tmp_path / "encoder.keras").exists()
    exec(monitored.replace("epochs=10", "epochs=1"), names)
    assert {"knn", "linear"} <= names["model"].history.history.keys()
    names["backbone"].save("backbone.keras")
    exec(loaded, names)
    assert names["backbone"](images[:2]).shape == (2, 32) and not names["backbone"].trainable


def test_commands_name_what_there_is():
    named = {kind: re.findall(rf"--{kind}=([\w/.]+)", README) for kind in ("config", "strategy")}
    assert len(named["config"]) > 4
    for name in named["config"]:
        assert pathlib.Path(presets.find(name)).resolve().is_relative_to(presets.folder())
    assert named["strategy"] and set(named["strategy"]) <= set(STRATEGIES)
    scripts = re.findall(r"python ((?:\w+/)*\w+\.py)", README)
    assert scripts and all((tiny.ROOT / path).exists() for path in scripts)
