"""Starts a command of the package: `python -m moco_tf COMMAND ...`; alone, it lists them."""

import importlib
import sys

COMMANDS = {
    "train": "pre-train an encoder with MoCo",
    "evaluate": "kNN, linear classification, fine-tuning, detection, segmentation",
    "ablate": "pre-train the variants of an ablation, and compare them",
    "export": "write an encoder for TensorFlow Serving, ONNX, PyTorch and others",
    "import_torch": "make a workdir of a PyTorch checkpoint",
    "client": "embed images by a served model",
    "convert": "copy a folder of images into TFRecord shards",
    "check": "check annotated images before anything is trained on them",
    "report": "write the report of a run again",
}


def main():
    """Starts the command that the first argument names."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name not in COMMANDS:
        lines = [f"  {command:<14}{title}" for command, title in COMMANDS.items()]
        text = "\n".join(["Usage: python -m moco_tf COMMAND ...", "", *lines])
        if name in ("-h", "--help"):
            print(text)
            return
        sys.exit(f"{text}\n\nA command must be one of those above. Received: {name}.")
    command = importlib.import_module(f"moco_tf.commands.{name}")
    sys.modules["__main__"].__doc__ = command.__doc__  # what --help shows
    sys.argv = [f"python -m moco_tf {name}", *rest]
    command.run()


if __name__ == "__main__":
    main()
