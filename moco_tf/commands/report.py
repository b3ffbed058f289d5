"""Rewrites report.html of a pre-training run.

python -m moco_tf report WORKDIR
"""

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
    if len(argv) != 1 or not tf.io.gfile.exists(os.path.join(argv[0], "config.json")):
        sys.exit(
            "Usage: python -m moco_tf report WORKDIR, the workdir of a train.py run. Received: "
            f"{' '.join(argv) or 'nothing'}."
        )
    workdir = argv[0]
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
