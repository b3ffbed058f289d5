"""The commands that a run ends with can be pasted into a shell, whatever its folders are called."""

import os
import shlex

import pytest

from moco_tf import storage
from moco_tf.commands import evaluate, export
from moco_tf.pretraining import report


@pytest.mark.parametrize("name", ["run", "my run's", "$HOME (2)"])
def test_paths_are_quoted(name, tmp_path):
    workdir = str(tmp_path / name)
    os.makedirs(workdir)
    storage.write_text(os.path.join(workdir, "metrics.jsonl"), '{"step": 1, "loss": 2.0}\n')
    text = report.summary(workdir, 1, "folder:my photos/été's")
    after = [line.partition("#")[0] for line in text.partition("Next:\n")[2].splitlines()]
    commands = [shlex.split(line) for line in after if "python -m" in line]
    assert ["python", "-m", "moco_tf", "embed", workdir, "my photos/été's"] in commands
    assert commands[-2][-2:] == [f"--checkpoint={workdir}", f"--workdir={workdir}_neighbours"]
    assert commands[-1][-2:] == [
        f"--workdir={workdir}_classes",
        "--config.data.train=csv:LABELS.csv",
    ]
    calls = [line.strip() for line in after if "(" in line and "keras" in line]
    assert eval(calls[0].partition("(")[2][:-1]) == os.path.join(workdir, "encoder.keras")


@pytest.mark.parametrize("name", ["classes", "my run's", "$HOME (2)"])
def test_a_classifier_is_exported_and_served_by_what_is_printed(name, tmp_path):
    workdir = str(tmp_path / name)
    head, command = evaluate.next_command(workdir).splitlines()
    served = os.path.join(workdir, "served")
    flags = [f"--checkpoint={workdir}", f"--output={served}"]
    assert head == "Next:" and shlex.split(command)[-2:] == flags
    words = shlex.split(export.next_command(served).splitlines()[1])
    assert words[words.index("-v") + 1] == f"{served}:/models/moco"
