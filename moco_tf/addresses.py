"""Addresses such as "resnet:resnet50": a module, and what to take from it."""

import importlib
import pkgutil


def module_of(package, address, kind):
    """Imports the module that `address` names in `package`.

    Args:
        package: imported package to look in.
        address: "MODULE:REST".
        kind: what is looked for, for the error, such as "data.source".

    Returns:
        `(module, rest)`.

    Raises:
        ValueError: if there is no such module; it lists those there are.
    """
    name, colon, rest = address.partition(":")
    names = [m.name for m in pkgutil.iter_modules(package.__path__)]
    modules = {n: importlib.import_module(f"{package.__name__}.{n}") for n in names}
    known = {n: module for n, module in modules.items() if hasattr(module, "ADDRESSES")}
    if not colon or name not in known:
        forms = ", ".join(form for module in known.values() for form in module.ADDRESSES)
        raise ValueError(f"`{kind}` must be one of {forms}. Received: {address!r}.")
    return known[name], rest


def resolve(package, address, kind):
    """The object that "MODULE:NAME" names in `package`; errors as `module_of`."""
    module, name = module_of(package, address, kind)
    if address not in module.ADDRESSES:
        valid = ", ".join(module.ADDRESSES)
        raise ValueError(f"`{kind}` must be one of {valid}. Received: {address!r}.")
    return getattr(module, name)
