"""Packages of the wheel: moco_tf, and the files of configs/ as moco_tf.configs."""

import pathlib

from setuptools import find_packages, setup

configs = [path for path in pathlib.Path("configs").rglob("*") if path.is_dir()]
setup(
    packages=[
        *find_packages(include=["moco_tf*"]),
        "moco_tf.configs",
        *(".".join(("moco_tf", *path.parts)) for path in configs if path.name != "__pycache__"),
    ],
    package_dir={"moco_tf.configs": "configs"},
)
