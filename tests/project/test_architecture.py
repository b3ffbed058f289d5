"""The rules of the house, checked by reading the code."""

import ast
import configparser
import pathlib
import re
import sys

import pytest
import tiny

PACKAGE = tiny.ROOT / "moco_tf"
# Imports go down only: a module may import those of lower levels, and of its own package.
LEVELS = [
    {"rules", "log", "spelling"},
    {
        "startup",
        "addresses",
        "arguments",
        "schema",
        "presets",
        "version",
        "optim",
        "distribute",
        "strategies",
    },
    {"storage", "backbones", "updates", "fit_data", "workers"},
    {"trainer"},
    {"contrastive"},
    {"momentum"},
    {"data", "moco", "moco_v3", "mechanisms"},
    {"training", "reports"},
    {"probes"},
    {"pretraining"},
    {"interop"},
    {"encoders"},
    {"warm_start"},
    {"evaluation"},
    {"detection", "segmentation"},
    {"commands", "__main__"},
]


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")


def imports(path):
    """Names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level(name):
    for number, names in enumerate(LEVELS):
        if any(name == n or name.startswith(n + ".") for n in names):
            return number
    raise AssertionError(f"{name} has no level: add it to LEVELS.")


def own(path):
    return {n.removeprefix("moco_tf.") for n in imports(path) if n.startswith("moco_tf.")}


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.stem)
def test_imports_go_down_only(path):
    name = str(path.relative_to(PACKAGE).with_suffix("")).replace("/", ".")
    for other in own(path):
        same_package = "." in name and other.split(".")[0] == name.split(".")[0]
        assert same_package or level(other) < level(name), f"{name} imports {other}"


def test_moco_imports_only_its_base_and_the_step_and_configs_only_what_they_are():
    modules = {name.split(".")[0] for name in own(PACKAGE / "moco.py")}
    assert modules == {"contrastive", "momentum"}
    modules = {name.split(".")[0] for name in own(PACKAGE / "momentum.py")}
    assert modules == {"contrastive", "distribute", "updates"}
    modules = {name.split(".")[0] for name in own(PACKAGE / "moco_v3.py")}
    assert modules == {"contrastive", "momentum", "backbones"}
    for path in (tiny.ROOT / "configs").rglob("*.py"):
        schemas = {"ablations": ("pretraining.ablation.",), "eval": ("evaluation.config.",)}
        schemas["transfer"] = ("segmentation.config.", "detection.config.")
        allowed = ("pretraining.config.", "training.config.", *schemas.get(path.parent.name, ()))
        assert all(name.startswith(allowed) for name in own(path)), path


def test_only_commands_know_flags():
    for path in modules():
        if path.parent.name == "commands":
            continue
        assert not any(n.startswith("absl.flags") or n == "absl.app" for n in imports(path)), path


def test_no_file_is_longer_than_one_reading():
    for path in [*modules(), *tiny.ROOT.glob("*.py"), *(tiny.ROOT / "tests").rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 300, path


def test_every_config_says_command_cost_and_result():
    for path in (tiny.ROOT / "configs").rglob("*.py"):
        header = ast.get_docstring(ast.parse(path.read_text()))
        for word in ("Command:", "Cost:", "Expected:", "Source:"):
            assert word in header, f"{path.name} lacks {word}"


def requirements(text):
    return {line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"}


def test_the_tpu_requirements_are_the_installed_ones_without_tensorflow():
    setup = configparser.ConfigParser()
    setup.read(tiny.ROOT / "setup.cfg")
    needed = requirements(setup["options"]["install_requires"])
    on_tpu = requirements((tiny.ROOT / "requirements-tpu.txt").read_text())
    assert {r for r in needed if not r.startswith("tensorflow>")} == on_tpu


def test_every_import_is_declared():
    setup = configparser.ConfigParser()
    setup.read(tiny.ROOT / "setup.cfg")
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in ("umap", "serving", "onnx")]
    declared = {re.split(r"[<>=\[]", r)[0] for text in texts for r in requirements(text)}
    modules_of = {"absl-py": "absl", "scikit-learn": "sklearn", "umap-learn": "umap"}
    modules_of |= {"tensorflow-serving-api": "tensorflow_serving", "grpcio": "grpc"}
    named = {modules_of.get(name, name.replace("-", "_")) for name in declared}
    allowed = named | {"moco_tf", "setuptools"}  # the latter by pyproject.toml, for setup.py
    for path in [*modules(), *tiny.ROOT.glob("*.py")]:
        for name in imports(path):
            top = name.split(".")[0]
            assert top in allowed or top in sys.stdlib_module_names, f"{path} imports {top}"


def test_project_files_name_no_machine():
    here = str(tiny.ROOT.parent) + "/"
    for path in tiny.ROOT.rglob("*"):
        inside = path.relative_to(tiny.ROOT).parts
        ours = not any(p.startswith(".") or p == "runs" or p.endswith(".egg-info") for p in inside)
        if ours and path.suffix in (".py", ".md", ".cfg", ".toml", ".txt"):
            assert here not in path.read_text(), path


def test_readme_and_licence_are_there():
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "Makefile", ".ci/run"):
        assert (pathlib.Path(tiny.ROOT) / name).exists()
