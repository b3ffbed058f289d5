"""What README and the pages of docs/ show works as it stands there, but for sizes."""

import pathlib
import re
import shlex

import numpy as np
import pytest
import tiny
import yaml

import moco_tf
from moco_tf import presets, schema
from moco_tf.__main__ import COMMANDS
from moco_tf.data.sources import synthetic
from moco_tf.evaluation import task
from moco_tf.strategies import STRATEGIES
from moco_tf.training import checkpoint

README = (tiny.ROOT / "README.md").read_text()
PAGES = [tiny.ROOT / "README.md", *sorted((tiny.ROOT / "docs").glob("*.md"))]
SHARED_FLAGS = ("config_flag", "run_flags", "script")  # modules with flags of several commands


def code_blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.S)


def page(name):
    return (tiny.ROOT / "docs" / f"{name}.md").read_text()


def commands(path):
    """The commands of the package that a page shows, each as its words."""
    blocks = code_blocks(path.read_text(), "(?:bash|sh|)")
    inline = re.findall(r"`(python -m moco_tf [^`]+)`", path.read_text())
    inline = [" ".join(text.split()) for text in inline]
    lines = [*"\n".join(blocks).replace("\\\n", " ").splitlines(), *inline]
    found = [re.search(r"python -m moco_tf (.*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


ALL = [(path.stem, words) for path in PAGES for words in commands(path)]


def test_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 150 and max(len(line) for line in lines if "|" not in line) <= 160


def test_the_scripts_of_the_pages_run(tmp_path, monkeypatch):
    (code,) = code_blocks(README, "python")
    assert code in page("fit")
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
    (monitored,) = code_blocks(page("evaluation"), "python")
    exec(monitored.replace("epochs=10", "epochs=1"), names)
    assert {"knn", "linear"} <= names["model"].history.history.keys()
    names["backbone"].save("backbone.keras")
    (loaded,) = code_blocks(page("serving"), "python")
    exec(loaded, names)
    assert names["backbone"](images[:2]).shape == (2, 32) and not names["backbone"].trainable


def test_there_are_commands_to_test():
    assert len(ALL) > 25
    assert {"train", "evaluate", "ablate", "export", "import_torch"} <= {w[0] for _, w in ALL}


@pytest.mark.parametrize("name, words", ALL, ids=lambda x: x if isinstance(x, str) else " ".join(x))
def test_a_command_of_a_page_is_one_that_the_package_takes(name, words):
    command, *arguments = words
    if command == "COMMAND":
        return
    assert command in COMMANDS
    source = command_source(command)
    config = default_config(arguments)
    for argument in arguments:
        match = re.match(r"--([\w.]+)(?:=(.*))?$", argument)
        if not match:
            continue
        flag, value = match.groups()
        if flag.startswith("config."):
            fields = {field.name for field in schema.fields(getattr(config, "base", config))}
            assert flag.removeprefix("config.").removeprefix("base.") in fields, argument
        else:
            known = flag == "help" or re.search(rf'"(?:--)?{flag}"', source)
            assert known, f"{command} has no --{flag}"
        if flag == "strategy":
            assert value in STRATEGIES
        if flag == "task" and value not in ("compare", "TASK"):
            assert task.find(value) or ":" in value


def command_source(command):
    """The source of a command and of the flags that it shares."""
    folder = tiny.ROOT / "moco_tf" / "commands"
    return "".join((folder / f"{name}.py").read_text() for name in (command, *SHARED_FLAGS))


def default_config(arguments):
    """The config whose fields a command's --config.x set."""
    flags = dict(a.lstrip("-").partition("=")[::2] for a in arguments if a.startswith("--"))
    if "config" in flags:
        return presets.load(flags["config"])
    preset = f"eval/{flags.get('task')}"
    return presets.load(preset if preset in presets.names() else "moco_v2")


def test_the_fields_that_a_resumed_run_may_change_are_named():
    for name in checkpoint.FREE_FIELDS:
        assert f"`{name}`" in page("pretraining")


@pytest.mark.parametrize(
    "name, answer",
    [
        ("evaluation", "The query encoder is evaluated"),
        ("serving", "The exported encoder is the query encoder"),
        ("serving", "If it expects 0 to 255"),
        ("serving", "an encoder of 13 channels"),
        ("serving", "`encoder.keras` needs `import moco_tf`"),
        ("serving", '"inputs": {"image_bytes": [{"b64": '),
        ("pretraining", "An EXIF orientation is ignored"),
        ("fit", "Create one strategy object a process"),
    ],
)
def test_what_users_ask_has_its_answer_on_a_page(name, answer):
    assert answer in " ".join(page(name).split())


def test_what_the_pages_name_exists():
    makefile = (tiny.ROOT / "Makefile").read_text()
    for page_path in PAGES:
        text = page_path.read_text()
        for script in re.findall(r"python3? ((?:\w+/)+\w+\.py)", text):
            assert (tiny.ROOT / script).exists(), f"{page_path.name}: {script}"
        for target in re.findall(r"`make ([\w-]+)", text):
            assert f"\n{target}:" in makefile, f"{page_path.name}: make {target}"
        for named in re.findall(
            r"(?<![\w/.-])((?:tests|benchmarks|tools|moco_tf)/[\w/]+\.\w+)", text
        ):
            assert (tiny.ROOT / named).exists(), f"{page_path.name}: {named}"
        for config in re.findall(r"(?<![\w/])configs/[\w/]+\.py", text):
            path = pathlib.Path(presets.find(config)).resolve()
            assert path.is_relative_to(presets.folder())


def test_links_lead_to_files():
    for path in PAGES:
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
            assert link.startswith("https://") or (path.parent / link).exists(), f"{path}: {link}"


def test_every_page_is_in_the_index():
    index = page("index")
    for path in PAGES[1:]:
        assert path.stem == "index" or f"\n{path.stem}\n" in index, path.name


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((tiny.ROOT / "CITATION.cff").read_text())
    assert citation["version"] == moco_tf.__version__ and citation["license"] == "MIT"
    assert f"\n## {moco_tf.__version__}\n" in (tiny.ROOT / "CHANGELOG.md").read_text()
