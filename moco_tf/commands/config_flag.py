"""The flag --config and its overrides, --config.field=value."""

from absl import flags
from ml_collections import config_flags


class OrNone(flags.ArgumentParser):
    """Parses "none" as None, and anything else as another parser does.

    Whether a field may be none is for `schema.check` to say.

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


def define(help: str) -> flags.FlagHolder:
    """Defines --config for a command; its value is what the file's `get_config` returns."""
    config_flags.register_flag_parser_for_type(int, OrNone(flags.IntegerParser()))
    config_flags.register_flag_parser_for_type(float, OrNone(flags.FloatParser()))
    config_flags.register_flag_parser_for_type(str, OrNone(flags.ArgumentParser()))
    return config_flags.DEFINE_config_file("config", None, help)
