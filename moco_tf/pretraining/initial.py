"""The initial state of a new run: random, or what another run or a file left (`--init`)."""

import json
import os
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from moco_tf import distribute, storage
from moco_tf.contrastive import Contrastive
from moco_tf.log import log
from moco_tf.training.checkpoint import Checkpoints

RECORD = "init.json"  # in a workdir: what its run started from


class Init(NamedTuple):
    """Where a run starts from.

    Attributes:
        path: workdir or file, for the record.
        load: function that sets the weights and keys of a new model and returns what it took, a
            JSON-ready dict with `taken`, a list of words.
    """

    path: str
    load: Callable[[Contrastive], dict]


def start(
    model: Contrastive, init: Init | None, workdir: str, seed: int, strategy: tf.distribute.Strategy
):
    """Sets the model of a new run as `init` says, and saves it as the checkpoint of step 0.

    A run that has a checkpoint is left as it is, so a resumed run does not read `init.path` again.

    Args:
        model: compiled model with a built optimizer.
        init: where the run starts from, or None.
        workdir: claimed folder of the run, local or gs://.
        seed: seed of the run, which is set again after loading.
        strategy: strategy of the run; its chief writes.

    Raises:
        ValueError: if the run was started from something else.
    """
    path = os.path.join(workdir, RECORD)
    record = read_record(workdir)
    encoder = os.path.join(workdir, "encoder.keras")
    is_chief = distribute.is_chief(strategy)
    checkpoints = Checkpoints(model, model.encoder_q, encoder, write=is_chief)
    if checkpoints.latest:
        old = record["path"] if record else None
        if init and init.path != old:
            raise ValueError(
                f"A run can start from something else only in a new --workdir. Received: "
                f"--init={init.path}, but {workdir!r} was started "
                f"{f'from {old}' if old else 'without --init'}. Leave --init out to resume it."
            )
        if record:
            log.info("This run was started from %s: %s.", old, ", ".join(record["taken"]))
        return
    if init is None:
        if is_chief and record:  # of a run that ended before its first checkpoint
            tf.io.gfile.remove(path)
        return
    facts = {"path": init.path, **init.load(model)}
    keras.utils.set_random_seed(seed)
    log.info("Started from %s: %s.", init.path, ", ".join(facts["taken"]))
    if is_chief:  # the record first: a checkpoint without one would be a run without --init
        storage.write_text(path, json.dumps(facts, indent=2) + "\n")
        checkpoints.save()
    distribute.mean_over_workers(strategy, [0])  # waits until the chief has saved


def read_record(workdir: str) -> dict | None:
    """What a run was started from: the content of its init.json, None without one."""
    path = os.path.join(workdir, RECORD)
    if not tf.io.gfile.exists(path):
        return None
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)
