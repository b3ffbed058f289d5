"""Text of --help: the command's docstring, its flags, and each field of its config."""

import dataclasses
import sys
from typing import Any

from absl import flags

from moco_tf import presets, schema
from moco_tf.commands import config_flag

ASKS = ("--help", "-help", "-h", "--helpshort", "-helpshort")


def is_asked(argv: list[str]) -> bool:
    """Whether a command line asks for help."""
    return any(argument in ASKS for argument in argv[1:])


def text(argv: list[str], config: Any = None) -> str:
    """Returns the help of a command.

    Args:
        argv: command line; its --config, if it has one, is the config whose fields are shown.
        config: config whose fields are shown without a --config; None shows no fields.
    """
    name = config_flag.given(argv)
    parts = [(sys.modules["__main__"].__doc__ or "").strip(), _flags()]
    shown = presets.load(name) if name else config
    if shown is not None:
        base = getattr(shown, "base", None)  # an ablation has flags for its base only
        parts.append(_fields(shown, "config") if base is None else _fields(base, "config.base"))
    if name:
        parts.append(f"The values are those of {presets.find(name)}.")
    return "\n\n".join(parts)


def resolved(config: Any) -> str:
    """A config as flags, one a line: what --print_config prints.

    Args:
        config: checked config; of an ablation, the base that its variants share.

    Example:
        >>> resolved(presets.load("quickstart")).splitlines()[0]
        '--config.data.source=synthetic:fabrics'
    """
    base = getattr(config, "base", None)
    path = "config" if base is None else "config.base"
    return "\n".join(
        f"--{path}.{field.name}={_value(field.value)}" for field in schema.fields(base or config)
    )


def _flags():
    lines = ["Flags:"]
    for module, module_flags in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("moco_tf"):
            for flag in module_flags:
                lines.append(f"  --{flag.name}={_value(flag.value)}")
                lines.append(f"      {flag.help}")
    return "\n".join(lines)


def _fields(config, path):
    title = (type(config).__doc__ or "").strip().splitlines()[0]
    lines = [f"--{path}, {title}"]
    for field in schema.fields(config):
        if "." not in field.name:
            lines.append(f"  --{path}.{field.name}={_value(field.value)}")
            lines.append(f"      {field.rule.help} ({field.describe()})")
    parts = [field.name for field in dataclasses.fields(config)]
    texts = [
        _fields(getattr(config, name), f"{path}.{name}")
        for name in parts
        if dataclasses.is_dataclass(getattr(config, name))
    ]
    return "\n\n".join(["\n".join(lines), *texts])


def _value(value):
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple) and value:
        return ",".join(map(str, value)) + ("," if len(value) == 1 else "")
    return str(value)
