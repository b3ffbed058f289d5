"""Rewrites report.html of a pre-training run.

python -m moco_tf report WORKDIR
"""

import argparse
import json
import os
import sys

import keras
import tensorflow as tf

from moco_tf.data import recipes, sources
from moco_tf.pretraining import report
from moco_tf.pretraining.config import from_json


def main(argv: list[str]):
    """Writes WORKDIR/report.html and prints its path.

    Args:
        argv: arguments of the command: one workdir of a train.py run.
    """
    parser = argparse.ArgumentParser(prog="python -m moco_tf report", description=__doc__)
    parser.add_argument("workdir", metavar="WORKDIR", help="workdir of a pre-training run")
    workdir = parser.parse_args(argv).workdir
    if not tf.io.gfile.exists(os.path.join(workdir, "config.json")):
        parser.error(f"WORKDIR must be the workdir of a pre-training run. Received: {workdir}.")
    with tf.io.gfile.GFile(os.path.join(workdir, "config.json")) as file:
        config = from_json(json.load(file))
    recipe, recipe_k = recipes.find_both(config.data.recipe, config.data.recipe_k)
    data = config.data
    source = sources.open_source(data.source, data.data_dir, data.num_examples, decode=data.decode)
    encoder = os.path.join(workdir, "encoder.keras")
    if not tf.io.gfile.exists(encoder):
        sys.exit(f"{encoder} does not exist yet: the run writes it with its first checkpoint.")
    model = keras.models.load_model(encoder)
    print(report.write(workdir, source, recipe, recipe_k, model, config))


def run():
    """Starts the command with the arguments of the process."""
    main(sys.argv[1:])
