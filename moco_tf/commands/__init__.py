"""The commands: `python -m moco_tf COMMAND`."""
