"""Runs a command: parses flags, shows errors as messages, returns exit codes."""

import atexit
import importlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from absl import app, flags

from moco_tf import startup, strategies
from moco_tf.commands import did_you_mean, help
from moco_tf.commands.signals import NAMES, STOP
from moco_tf.log import log, show_log
from moco_tf.training.loop import Stopped

IMPORT = flags.DEFINE_list(
    "import", [], "Modules to import first, such as those that register layers of your own."
)
TRACEBACK = flags.DEFINE_bool("traceback", False, "Show the Python traceback of an error.")
_ARGV: list[str] = []  # the command line before `prepare` changes it


def run(
    main: Callable[[list[str]], None],
    check: Callable[[list[str]], None],
    prepare: Callable[[list[str]], list[str]] = list,
    shown: Callable[[list[str]], Any] = lambda argv: None,
):
    """Runs a command.

    Args:
        main: function of the positional arguments.
        check: function of the positional arguments that raises ValueError for wrong flags, before
            any work.
        prepare: function that changes the command line before it is parsed.
        shown: function from the command line to the config whose fields --help shows and whose
            fields a mistyped flag may have meant, or None.
    """

    def parse(argv):
        _ARGV[:] = argv
        try:
            if help.is_asked(argv):
                print(help.text(argv, shown(argv)), flush=True)
                sys.exit()
            sys.argv = prepare(argv)  # where ml_collections looks for overrides
            rest = flags.FLAGS(sys.argv)
            _import(IMPORT.value)
            check(rest[1:])
            if "print_config" in flags.FLAGS and flags.FLAGS.print_config:
                print(help.resolved(flags.FLAGS.config))
                sys.exit()
            return rest
        except BrokenPipeError:  # the reader of --help, such as `head`, has seen enough
            os._exit(0)
        except (flags.UnrecognizedFlagError, AttributeError, KeyError) as error:
            text = did_you_mean.message(argv, shown(argv))
            sys.exit(f"{argv[0]}: {text or (error.args[0] if error.args else error)}")
        except (flags.Error, OSError, ValueError) as error:
            sys.exit(f"{argv[0]}: {error.args[0] if error.args else error}")

    def guarded(argv):
        show_log()
        try:
            main(argv[1:])
        except Stopped as stopped:
            number = STOP.number or signal.SIGTERM  # another worker got it
            log.warning(
                "Stopped by %s after step %d, saved. The same command resumes.",
                NAMES[number],
                stopped.step,
            )
            sys.exit(128 + number)
        except KeyboardInterrupt:
            log.warning("Ended by Ctrl-C.")
            sys.exit(128 + signal.SIGINT)
        except (ValueError, FloatingPointError, OSError, tf.errors.OpError) as error:
            if TRACEBACK.value:
                raise
            text = explained(error) if isinstance(error, tf.errors.OpError) else error
            sys.exit(f"\n{text}\n(--traceback shows where this comes from)")

    with startup.quiet():
        tf.config.list_physical_devices()  # TensorFlow looks for a GPU
    try:
        app.run(guarded, flags_parser=parse)
    except SystemExit as end:
        if "TF_CONFIG" not in os.environ and not strategies.accelerators():
            _leave(end.code)
        raise  # other workers and accelerators want to be told


def typed() -> str:
    """The command of this process, as a user would type it again."""
    program, *arguments = _ARGV
    python = "python " if program.endswith(".py") else ""
    return f"{python}{program} {shlex.join(arguments)}"


def _leave(code):
    """Ends this process without destroying TensorFlow's objects.

    The thread by which tf.data tunes itself (Model::OptimizeLoop) can miss the call to end, on one
    core always; whoever destroys the iterator then waits until it looks up, for up to a minute.
    """
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()  # what modules of --import want done; there is no public function
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _import(modules):
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"`--import` must name modules that Python can import. Received: {name} ({error}). "
                "Put its folder into PYTHONPATH."
            ) from error


def explained(error: tf.errors.OpError) -> str:
    """The message of a TensorFlow error, without the list of code locations before it."""
    lines = [line for line in error.message.splitlines() if line.strip()]
    aborted = [line for line in lines if line.startswith("Collective ops is aborted by")]
    if aborted:
        return (
            "Another worker of this run ended or cannot be reached. The last checkpoint is whole: "
            f"start all workers again by the same command to resume from it.\n({aborted[0]})"
        )
    locations = ("Graph execution error:", "Detected at node", "  ", "\t")
    messages = [line for line in lines if not line.startswith(locations)]
    return re.sub(r"{{function_node .*?}} ?| \[Op:.*", "", (messages or lines)[0])


def only_flags(rest: list[str]):
    """Raises ValueError if there are positional arguments."""
    if rest:
        raise ValueError(f"Unknown arguments: {' '.join(rest)}. Flags start with --.")
