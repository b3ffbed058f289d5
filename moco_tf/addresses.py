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
    known = [m.name for m in pkgutil.iter_modules(package.__path__)]
    if not colon or name not in known:
        forms = [
            form
            for m in known
            for form in getattr(importlib.import_module(f"{package.__name__}.{m}"), "ADDRESSES", ())
        ]
        raise ValueError(f"`{kind}` must be one of {', '.join(forms)}. Received: {address!r}.")
    return importlib.import_module(f"{package.__name__}.{name}"), rest


def resolve(package, address, kind):
    """The object that "MODULE:NAME" names in `package`; errors as `module_of`."""
    module, name = module_of(package, address, kind)
    valid = getattr(module, "ADDRESSES", ())
    if address not in valid:
        raise ValueError(f"`{kind}` must be one of {', '.join(valid)}. Received: {address!r}.")
    return getattr(module, name)
