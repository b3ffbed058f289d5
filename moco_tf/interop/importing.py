"""Import of PyTorch checkpoints as workdirs."""

import json
import os
from typing import NamedTuple

import tensorflow as tf

from moco_tf import storage
from moco_tf.interop import naming_schemes, torch_file, training_state, weights
from moco_tf.pretraining import config as config_lib


class Imported(NamedTuple):
    """What a file held.

    Attributes:
        scheme: name in `naming_schemes.NAMING_SCHEMES` of the file's names.
        backbone: its name.
        config: with which training goes on; None if the file had no key encoder.
        step: at which it goes on.
        epoch: epochs done, 0 if the file does not say.
    """

    scheme: str
    backbone: str
    config: config_lib.Config | None
    step: int
    epoch: int


def import_torch(path, output, config=None):
    """Makes a workdir of a PyTorch file of MoCo, or of a ResNet alone.

    With a key encoder it is the workdir of a run, which `train.py` resumes; without, it has only
    encoder.keras, which `evaluate.py` and the exports read.

    Args:
        path: local or gs:// file, of one of `naming_schemes.NAMING_SCHEMES`.
        output: folder, without a run in it.
        config: `Config` with which training goes on; None for v1's or v2's on ImageNet.

    Returns:
        `Imported`.

    Raises:
        ValueError: for a file that cannot be read or holds another model, a config of another
            encoder, or an output that is taken.
    """
    training_state.require_new(output)
    if not tf.io.gfile.exists(path):
        raise ValueError(f"The file to import must exist. Received: {path!r}.")
    state = naming_schemes.parse(torch_file.read(path))
    if config and not state.key:
        raise ValueError(
            "A file to train on from must hold a key encoder. Received: one without, and a config. "
            "Leave `--config` out to take its encoder alone."
        )
    model, step = None, 0
    if state.key:
        config = training_state.config_of(state, config)
        model, step = training_state.model_of(state, config)
    else:
        encoder = training_state.encoder_of(state, repr(path))
    facts = {"file": os.path.basename(path), "scheme": state.scheme}
    facts |= {"epoch": state.epoch, "step": step}
    try:
        tf.io.gfile.makedirs(output)
        text = json.dumps(facts, indent=2) + "\n"
        storage.write_text(os.path.join(output, training_state.IMPORTED), text)
        if model:
            training_state.write(model, config, output)
        else:
            storage.save_model(encoder, os.path.join(output, "encoder.keras"))
    except BaseException:
        training_state.remove(output)
        raise
    name = weights.describe(state.query)[0].backbone.partition(":")[2]
    return Imported(state.scheme, name, config, step, state.epoch)
