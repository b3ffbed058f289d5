"""Config files by name or path: "moco_v2", "eval/knn", "configs/transfer/voc_c4.py".

The files of configs/ are shipped with the package, as moco_tf/configs.
"""

import importlib.util
import pathlib
from typing import Any

from moco_tf import spelling

PACKAGE = pathlib.Path(__file__).resolve().parent


def folder() -> pathlib.Path:
    """Folder of the shipped configs: in the installed package, or beside it in a checkout."""
    installed = PACKAGE / "configs"
    return installed if installed.exists() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """Names of the shipped configs, such as "moco_v2" and "transfer/voc_c4"."""
    paths = (path.relative_to(folder()).with_suffix("") for path in folder().rglob("*.py"))
    return sorted(path.as_posix() for path in paths if path.name != "__init__")


def find(name: str) -> str:
    """Returns the path of a config file.

    Args:
        name: path of a file, or name of a shipped config. An argument for the file's
            `get_config` may follow a colon; the result keeps it.

    Raises:
        ValueError: if there is no such file; the message lists the shipped configs.

    Example:
        >>> find("moco_v2:800ep")
        '.../configs/moco_v2.py:800ep'
    """
    path, colon, argument = name.partition(":")
    if not pathlib.Path(path).is_file():
        preset = path.removeprefix("./").removeprefix("configs/").removesuffix(".py")
        if preset not in names():
            raise ValueError(
                "A config must be a file, or one of the shipped configs: "
                f"{', '.join(names())}. Received: {path}. {spelling.hint(preset, names())}".rstrip()
            )
        path = str(folder() / f"{preset}.py")
    return f"{path}{colon}{argument}"


def load(name: str) -> Any:
    """Returns what a config file's `get_config` returns.

    Args:
        name: see `find`.

    Example:
        >>> load("moco_v2:800ep").epochs
        800
    """
    path, colon, argument = find(name).partition(":")
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument) if colon else module.get_config()
