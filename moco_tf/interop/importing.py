"""Import of PyTorch checkpoints as workdirs."""

import json
import os
from typing import NamedTuple

import tensorflow as tf

from moco_tf import storage
from moco_tf.interop import naming_schemes, torch_file, training_state, weights
from moco_tf.pretraining import config as config_lib


class Imported(NamedTuple):
    """Contents of an imported file.

    Attributes:
        scheme: name in `naming_schemes.NAMING_SCHEMES` of the file's names.
        backbone: name of the backbone, such as "resnet50".
        config: `Config` of the run that continues; None if the file had no key encoder.
        step: steps done, at which training continues.
        epoch: epochs done; 0 if the file does not say.
    """

    scheme: str
    backbone: str
    config: config_lib.Config | None
    step: int
    epoch: int


def import_torch(path: str, output: str, config: config_lib.Config | None = None) -> Imported:
    """Imports a PyTorch checkpoint of MoCo, or of a ResNet or ViT alone, as a workdir.

    If the file has a key encoder, `train.py` can resume the workdir. Else the workdir has only
    encoder.keras, for `evaluate.py` and the exports.

    Args:
        path: local or gs:// file with names of one of `naming_schemes.NAMING_SCHEMES`.
        output: folder to write, without a run in it.
        config: `Config` of the run that continues; None: the one of MoCo v1 or v2 on ImageNet.

    Raises:
        ValueError: if the file cannot be read or holds another model, if the config has another
            encoder, or if the output already has a run.
    """
    training_state.require_new(output)
    if not tf.io.gfile.exists(path):
        raise ValueError(f"The file to import must exist. Received: {path!r}.")
    state = naming_schemes.parse(torch_file.read(path))
    if config and not state.key:
        raise ValueError(
            "A file must have a key encoder for training to continue. Received: a file without "
            "one, and a config. Leave `--config` out to import the encoder alone."
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
