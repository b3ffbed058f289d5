"""Starts a command of the package: `python -m moco_tf COMMAND ...`; alone, it lists them.

After `pip install` the same is `moco-tf COMMAND ...`.
"""

import importlib
import os
import sys

from moco_tf import spelling

COMMANDS = {
    "train": "pre-train an encoder with MoCo",
    "evaluate": "kNN, linear classification, fine-tuning, detection, segmentation",
    "ablate": "pre-train the variants of an ablation, and compare them",
    "export": "write an encoder for TensorFlow Serving, ONNX, PyTorch and others",
    "import_torch": "make a workdir of a PyTorch checkpoint",
    "embed": "embed images by a trained encoder",
    "search": "show the images that are most like some others",
    "duplicates": "show groups of images that are nearly the same",
    "client": "embed images by a served model",
    "convert": "copy a folder of images into TFRecord shards",
    "check": "check annotated images before anything is trained on them",
    "report": "write the report of a run again",
}


def main():
    """Starts the command that the first argument names."""
    program = "moco-tf" if os.path.basename(sys.argv[0]) == "moco-tf" else "python -m moco_tf"
    name, *rest = sys.argv[1:] or ["--help"]
    if name not in COMMANDS:
        text = usage(program)
        if name in ("-h", "--help", "help"):
            print(text)
            return
        hint = spelling.hint(name, list(COMMANDS))
        sys.exit(f"{text}\n\nThere is no command {name!r}. {hint}".rstrip())
    command = importlib.import_module(f"moco_tf.commands.{name}")
    sys.modules["__main__"].__doc__ = command.__doc__  # what --help shows
    sys.argv = [f"{program} {name}", *rest]
    command.run()


def usage(program: str) -> str:
    """The list of commands, with a line each.

    Args:
        program: how the package is started, such as "python -m moco_tf".
    """
    lines = [f"  {command:<14}{title}" for command, title in COMMANDS.items()]
    return "\n".join(
        [
            f"Usage: {program} COMMAND ...",
            "",
            *lines,
            "",
            f"{program} COMMAND --help shows a command's flags and, with --config=NAME,",
            "every field of that config with its value, range and meaning.",
        ]
    )


if __name__ == "__main__":
    main()
