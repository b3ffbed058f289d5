"""Record of what rounds a run's numbers besides its config, compared when the run resumes."""

import json
import os

import tensorflow as tf

from moco_tf import startup, storage
from moco_tf.log import log

RECORD = "rounding.json"  # in a workdir: where the run started


def facts() -> dict:
    """TensorFlow's version, and whether its CPU ops are those of oneDNN.

    Example:
        >>> sorted(facts())
        ['onednn', 'tensorflow']
    """
    return {"tensorflow": tf.__version__, "onednn": startup.has_onednn()}


def write(workdir: str):
    """Writes the record of a new workdir. Only the chief calls it."""
    storage.write_text(os.path.join(workdir, RECORD), json.dumps(facts(), indent=2) + "\n")


def compare(workdir: str):
    """Warns if the run in a workdir started with other facts. Only the chief calls it."""
    path = os.path.join(workdir, RECORD)
    if not tf.io.gfile.exists(path):
        return
    with tf.io.gfile.GFile(path) as file:
        old = json.load(file)
    new = facts()
    differences = [f"{k}: {old.get(k)} -> {new[k]}" for k in new if old.get(k) != new[k]]
    if differences:
        log.warning(
            "The run goes on with other rounding (at its start -> now): %s. Its numbers are no "
            "longer those of a run that was not stopped, bit for bit.%s",
            "; ".join(differences),
            ""
            if old.get("onednn") == new["onednn"]
            else f" TF_ENABLE_ONEDNN_OPTS={int(not new['onednn'])} brings the old rounding back.",
        )
