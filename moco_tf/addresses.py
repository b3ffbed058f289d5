"""Addresses such as "resnet:resnet50": a module, a colon, and a name in the module.

The module is one of the package's own, or any other that Python can import: "moco:v2" is the
recipe `v2` of moco_tf/data/recipes/moco.py, "my_project.augmentations:weak" is one of yours.
"""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from moco_tf import spelling


def module_of(package: ModuleType, address: str, option: str) -> tuple[ModuleType, str]:
    """Imports the module that an address names and returns it with the rest of the address.

    Such a module, the package's own or yours, lists the forms of its addresses in `ADDRESSES`.

    Args:
        package: imported package whose modules come first.
        address: "MODULE:REST".
        option: name of the config field, for messages, such as "data.source".

    Returns:
        `(module, rest)`.

    Raises:
        ValueError: if there is no such module; the message lists the package's own addresses.

    Example:
        >>> from moco_tf.data import sources
        >>> module_of(sources, "synthetic:shapes:test", "data.source")[1]
        'shapes:test'
    """
    module, rest = _import(package, address, option)
    if not hasattr(module, "ADDRESSES"):
        raise _error(package, address, option, "which has no ADDRESSES")
    return module, rest


def resolve(package: ModuleType, address: str, option: str, instance_of: type = object) -> Any:
    """Returns the object that an address names.

    Args:
        package: imported package whose modules come first. Of these, only what a module lists in
            `ADDRESSES` can be named.
        address: "MODULE:NAME".
        option: name of the config field, for messages, such as "data.recipe".
        instance_of: class that the object must belong to.

    Raises:
        ValueError: if there is no such object; the message lists the package's own addresses.

    Example:
        >>> from moco_tf.data import recipes
        >>> resolve(recipes, "moco:v2", "data.recipe").crop.scale
        (0.2, 1.0)
    """
    module, name = _import(package, address, option)
    is_listed = address in getattr(module, "ADDRESSES", ())
    is_inside = module is _module_in(package, address.partition(":")[0])
    if not hasattr(module, name) or (is_inside and not is_listed):
        raise _error(package, address, option, f"which {module.__name__} does not have")
    if not isinstance(getattr(module, name), instance_of):
        raise _error(package, address, option, f"which is no {instance_of.__name__}")
    return getattr(module, name)


def _import(package, address, option):
    """The module of an address and the rest of it."""
    name, colon, rest = address.partition(":")
    if not colon:
        raise _error(package, address, option, "which has no colon")
    module = _module_in(package, name) or _import_outside(name)
    if module is None:
        raise _error(package, address, option, f"but Python finds no module {name!r}")
    return module, rest


def _error(package, address, option, problem):
    names = [m.name for m in pkgutil.iter_modules(package.__path__)]
    modules = [module for module in (_module_in(package, name) for name in names) if module]
    forms = [form for module in modules for form in module.ADDRESSES]
    return ValueError(
        f"`{option}` must be one of {', '.join(forms)}, or the import path of yours, such as "
        "my_module:name with my_module installed or in a folder of PYTHONPATH. Received: "
        f"{address!r}, {problem}. {spelling.hint(address, forms)}".rstrip()
    )


def _module_in(package, name):
    """The package's own module of that name, None if there is none that has addresses."""
    if name not in [m.name for m in pkgutil.iter_modules(package.__path__)]:
        return None
    module = importlib.import_module(f"{package.__name__}.{name}")
    return module if hasattr(module, "ADDRESSES") else None


def _import_outside(name):
    """A module from outside the package by its import path, None if there is none."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # If the missing module is one that it imports, that is another error.
        prefixes = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
        if error.name in prefixes:
            return None
        raise
