"""What a mistyped flag was meant to be: a message that names the flags and fields like it."""

import difflib
from collections.abc import Sequence
from typing import Any

from absl import flags

from moco_tf import presets, schema
from moco_tf.commands import config_flag


def message(argv: list[str], config: Any) -> str:
    """Names the first unknown flag of a command line, and what it may have meant.

    Args:
        argv: command line.
        config: config whose fields are known without a --config; None for a command without one.

    Returns:
        The message; "" if all flags are known, or the config cannot be loaded.
    """
    name = config_flag.given(argv)
    try:
        config = presets.load(name) if name else config
    except Exception:  # the config file itself is wrong, as the error that led here says
        return ""
    base = getattr(config, "base", None)  # an ablation has flags for its base only
    fields = [] if config is None else [field.name for field in schema.fields(base or config)]
    fields = [f"config.base.{name}" if base else f"config.{name}" for name in fields]
    # An override of a field is a flag from the moment that it is parsed, though there is no field.
    known = [*fields, *(flag for flag in flags.FLAGS if not flag.startswith("config."))]
    for argument in argv[1:]:
        typed = argument.lstrip("-").partition("=")[0]
        if not argument.startswith("--") or typed in known or typed.removeprefix("no") in known:
            continue
        similar = suggestions(typed, known)
        hint = f"Did you mean --{' or --'.join(similar)}? " if similar else ""
        return f"There is no flag --{typed}. {hint}--help lists all of them."
    return ""


def suggestions(typed: str, known: Sequence[str]) -> list[str]:
    """At most three of the known names that a mistyped name may have meant, likely ones first.

    Example:
        >>> known = ["config.epochs", "config.optimizer.learning_rate", "workdir"]
        >>> suggestions("epochs", known), suggestions("config.lr", known)
        (['config.epochs'], ['config.optimizer.learning_rate'])
        >>> suggestions("worxdir", known)
        ['workdir']
    """
    last = typed.rpartition(".")[2]
    same_end = [name for name in known if name.endswith(f".{typed.removeprefix('config.')}")]
    same_last = [name for name in known if name.rpartition(".")[2] == last]
    initials = [name for name in known if _initials(name.rpartition(".")[2]) == last]
    close = difflib.get_close_matches(typed, known, n=1, cutoff=0.8)
    lasts = {}
    for name in known:
        lasts.setdefault(name.rpartition(".")[2], []).append(name)
    close_last = [
        name for match in difflib.get_close_matches(last, lasts, n=1) for name in lasts[match]
    ]
    for names in (same_end, same_last, initials, close, close_last):
        if names:
            return names[:3]
    return []


def _initials(name):
    """The first letters of the words of a name, such as "lr" of "learning_rate"."""
    words = name.split("_")
    return "".join(word[0] for word in words if word) if len(words) > 1 else ""
