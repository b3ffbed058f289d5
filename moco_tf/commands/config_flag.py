"""The flag --config and its overrides, --config.field=value."""

from typing import Any

from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from moco_tf import presets


class OrNone(flags.ArgumentParser):
    """Parses "none" as None, and anything else as another parser does.

    `schema.check` decides whether a field may be none.

    Args:
        parser: parser of the other values.
    """

    def __init__(self, parser: flags.ArgumentParser):
        self.parser = parser
        self.syntactic_help = parser.syntactic_help

    def parse(self, argument):
        return None if argument in ("none", "None") else self.parser.parse(argument)

    def flag_type(self):
        return self.parser.flag_type()


class ConfigFile(flags.ArgumentParser):
    """Parses a path, or the name of a shipped config, as what the file's `get_config` returns.

    Args:
        parser: parser of a path.
    """

    def __init__(self, parser: flags.ArgumentParser):
        self.parser = parser
        self.syntactic_help = parser.syntactic_help

    def parse(self, argument):
        _, _, variant = argument.partition(":")
        try:
            return self.parser.parse(presets.find(argument))
        except KeyError as error:
            if error.args != (variant,):
                raise
            raise ValueError(
                f"the file has no variant {variant!r}; its header lists the variants"
            ) from error

    def flag_type(self):
        return self.parser.flag_type()


class Items(tuple_parser.TupleParser):
    """Parses "none" as (), a tuple as Python writes it, and else texts with commas between."""

    def parse(self, argument):
        if argument in ("none", "None"):
            return ()
        try:
            return super().parse(argument)
        except ValueError:
            return tuple(text for text in argument.split(",") if text)


def define(help: str, flag_values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """Defines --config for a command; its value is what the file's `get_config` returns."""
    config_flags.register_flag_parser_for_type(int, OrNone(flags.IntegerParser()))
    config_flags.register_flag_parser_for_type(float, OrNone(flags.FloatParser()))
    config_flags.register_flag_parser_for_type(str, OrNone(flags.ArgumentParser()))
    config_flags.register_flag_parser_for_type(tuple, Items())
    holder = config_flags.DEFINE_config_file("config", None, help, flag_values)
    flag = flag_values["config"]
    flag.parser = ConfigFile(flag.parser)
    return holder


def given(argv: list[str], flag: str = "config") -> str | None:
    """Value of a flag on a command line that is not parsed yet, or None."""
    for argument, following in zip(argv, [*argv[1:], None], strict=True):
        name, sign, value = argument.partition("=")
        if name in (f"--{flag}", f"-{flag}"):
            return value if sign else following
    return None


def overrides() -> dict[str, Any]:
    """Values of the fields that the command line sets, by their dotted names."""
    return dict(config_flags.get_override_values(flags.FLAGS["config"]))
