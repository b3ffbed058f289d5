"""Config of the task in multi_label.py."""

from multi_label import MultiLabelConfig


def get_config():
    return MultiLabelConfig(strength=10.0)
