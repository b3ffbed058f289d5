"""Start and end of a command: errors become a message, a stopped run an exit code."""

import re
import signal
import sys

import tensorflow as tf
from absl import app, flags

from moco_tf.commands import help
from moco_tf.log import log, show_log
from moco_tf.training.loop import Stopped

TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where an error comes from.")


def run(main, check, prepare=list, shown=lambda argv: None):
    """Runs a script.

    Args:
        main: function of the arguments that are no flags.
        check: function of the same that raises ValueError for wrong flags, before any work.
        prepare: function from the command line to the one that is parsed.
        shown: function from the command line to the config whose fields --help shows, if any.
    """

    def parse(argv):
        try:
            if help.is_asked(argv):
                print(help.text(argv, shown(argv)))
                sys.exit()
            rest = flags.FLAGS(prepare(argv))
            check(rest[1:])
            return rest
        except (flags.Error, AttributeError, KeyError, OSError, ValueError) as error:
            sys.exit(f"{argv[0]}: {error.args[0] if error.args else error}")

    def guarded(argv):
        show_log()
        try:
            main(argv[1:])
        except Stopped as stopped:
            log.warning(
                "Stopped by SIGTERM after step %d, saved. The same command resumes.", stopped.step
            )
            sys.exit(128 + signal.SIGTERM)
        except (ValueError, FloatingPointError, OSError, tf.errors.OpError) as error:
            if TRACEBACK.value:
                raise
            text = explained(error) if isinstance(error, tf.errors.OpError) else error
            sys.exit(f"\n{text}\n(--traceback shows where this comes from)")

    app.run(guarded, flags_parser=parse)


def explained(error):
    """What a `tf.errors.OpError` says, without the places in the code that it lists first."""
    lines = [line for line in error.message.splitlines() if line.strip()]
    gone = [line for line in lines if line.startswith("Collective ops is aborted by")]
    if gone:
        return (
            "Another worker of this run ended or cannot be reached. The last checkpoint is whole: "
            f"start all workers again by the same command, and they resume from it.\n({gone[0]})"
        )
    places = ("Graph execution error:", "Detected at node", "  ", "\t")
    told = [line for line in lines if not line.startswith(places)]
    return re.sub(r"{{function_node .*?}} ?| \[Op:.*", "", (told or lines)[0])


def only_flags(rest):
    """Raises ValueError if there are arguments that are no flags."""
    if rest:
        raise ValueError(f"Unknown arguments: {' '.join(rest)}. Flags start with --.")
