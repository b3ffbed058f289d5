"""Commands of the package: `python -m moco_tf COMMAND`."""
