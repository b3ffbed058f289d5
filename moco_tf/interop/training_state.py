"""Conversion of a run's training state between its workdir and a PyTorch checkpoint."""

import copy
import json
import os

import keras
import tensorflow as tf

from moco_tf import presets, schema
from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.precision import precision
from moco_tf.interop import naming_schemes, weights
from moco_tf.log import log
from moco_tf.moco import MoCo
from moco_tf.pretraining import build, mechanism
from moco_tf.pretraining import config as config_lib
from moco_tf.pretraining.config import Config
from moco_tf.training import checkpoint
from moco_tf.training.metrics_file import lines_of

IMPORTED = "imported.json"  # in a workdir: the file that it was imported from
RUN = ("config.json", "encoder.keras", "checkpoints", IMPORTED)  # files and folders of a run


def encoder_of(state: naming_schemes.State, name: str = "The file") -> Encoder:
    """The query encoder of a state; it has no head if the state has none.

    Args:
        state: arrays of a PyTorch checkpoint.
        name: name of the checkpoint, for messages.

    Raises:
        ValueError: for weights of an unknown architecture.
    """
    model, has_head = weights.describe(state.query)
    with precision("float32"):
        encoder = build.make_encoder(model, has_head)
    weights.set_arrays(encoder, state.query, name)
    return encoder


def config_of(state: naming_schemes.State, base: Config | None = None) -> Config:
    """The `Config` of a run that continues from a state.

    Args:
        state: training state with a key encoder.
        base: config to copy, with the same encoder and queue; None: the one of MoCo v1 or v2 on
            ImageNet, chosen by the head.

    Raises:
        ValueError: naming the fields in which `base` differs from the state.
    """
    model, _ = weights.describe(state.query)
    names = ("backbone", "backbone_options", "width", "stem", "head", "hidden")
    fields = {name: getattr(model, name) for name in names}
    fields["dim"] = model.dim
    if state.queue is not None:
        fields["queue_size"] = len(state.queue)
    if base is None:
        base = standard_config(model.head)
        for name, value in fields.items():
            setattr(base.model, name, value)
        return base
    given = {name: getattr(base.model, name) for name in fields}
    differences = schema.differences(fields, given, "model.")
    if differences:
        raise ValueError(
            "The config must have the encoder and queue of the file. Differing fields (file -> "
            f"config): {'; '.join(differences)}. Change the config, or leave it out."
        )
    return copy.deepcopy(base)


def standard_config(head: str) -> Config:
    """The `Config` of configs/moco_v1.py (head "linear") or configs/moco_v2.py ("mlp")."""
    return presets.load({"linear": "moco_v1", "mlp": "moco_v2"}[head])


def model_of(state: naming_schemes.State, config: Config) -> tuple[MoCo, int]:
    """The compiled `MoCo` of a state, and the steps that it has done.

    Args:
        state: training state with a key encoder.
        config: config from `config_of`.
    """
    config_lib.check(config)
    model = _make_model(config)
    weights.set_arrays(model.encoder_q, state.query, "The query encoder")
    weights.set_arrays(model.encoder_k, state.key, "The key encoder")
    if state.queue is None:
        log.warning("The file has no queue: it starts with random keys, as in a new run.")
    else:
        model.queue.assign(state.queue)
        model.queue_ptr.assign(state.queue_ptr)
    if state.velocity is None:
        log.warning("The file has no momentum buffers in the official form: they start at 0.")
    else:
        for name, velocity in _velocities(model).items():
            velocity.assign(weights.from_torch(state.velocity[name]))
    if state.epoch and not state.forwards:
        log.warning(
            "The file says that %d epochs are done, but not how many steps (num_batches_tracked): "
            "the learning-rate schedule starts at step 0.",
            state.epoch,
        )
    step = state.forwards // _forwards_per_step(config)
    model.optimizer.iterations.assign(step)
    return model, step


def _make_model(config):
    """The model of a config; Keras' global dtype policy is restored afterwards."""
    with precision(keras.config.dtype_policy()):
        return build.make_model(config)


def write(model: MoCo, config: Config, workdir: str):
    """Writes a model's state as the workdir of a run, which `train.py` resumes."""
    _checkpoints(model, workdir, write=True).save()
    # config.json is written last: a folder without it is no run.
    checkpoint.claim_workdir(schema.to_dict(config), workdir, tf.distribute.get_strategy())


def remove(workdir: str):
    """Removes the files of an import that failed."""
    for name in RUN:
        path = os.path.join(workdir, name)
        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        elif tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)


def encoder_at(step_path: str, config: Config) -> Encoder:
    """The query encoder of one checkpoint, of a run with any mechanism.

    Args:
        step_path: checkpoint, such as RUN/checkpoints/step-100.
        config: `Config` of the run.
    """
    with precision("float32"):
        encoder = build.make_encoder(config.model)
    checkpoint.load(step_path, model=tf.train.Checkpoint(encoder_q=encoder))
    return encoder


def restored(workdir: str, config: Config, step_path: str | None = None) -> MoCo:
    """The compiled `MoCo` of a workdir's checkpoint.

    Args:
        workdir: folder of a train.py run.
        config: `Config` of the run.
        step_path: checkpoint, such as RUN/checkpoints/step-100; None: the newest.

    Raises:
        ValueError: if there is no checkpoint, or the run has another mechanism than MoCo's queue.
    """
    if not issubclass(mechanism.find(config.model.mechanism), MoCo):
        raise ValueError(
            "The training state can only be exported from a run with model.mechanism='queue'. "
            f"Received: a run with model.mechanism={config.model.mechanism!r}. To export its "
            "encoder alone, give its encoder.keras as `--checkpoint`."
        )
    model = _make_model(config)
    if step_path:
        checkpoint.load(step_path, model=model, optimizer=model.optimizer)
        return model
    checkpoints = _checkpoints(model, workdir, write=False)
    if not checkpoints.latest:
        raise ValueError(f"The workdir must have a checkpoint. Received: {workdir!r}, without one.")
    checkpoints.restore()
    return model


def read(workdir: str, config: Config, step_path: str | None = None) -> naming_schemes.State:
    """The state of a workdir's checkpoint; arguments and errors as in `restored`.

    Raises:
        ValueError: for a run with another optimizer than SGD, too.
    """
    if config.optimizer.name != "sgd":
        raise ValueError(
            "The training state can only be exported from a run with optimizer.name='sgd'. "
            f"Received: a run with optimizer.name={config.optimizer.name!r}. To export its "
            "encoder alone, give its encoder.keras as `--checkpoint`."
        )
    model = restored(workdir, config, step_path)
    step = int(model.optimizer.iterations.numpy())
    return naming_schemes.State(
        query=weights.arrays_of(model.encoder_q),
        key=weights.arrays_of(model.encoder_k),
        queue=model.queue.numpy(),
        queue_ptr=int(model.queue_ptr.numpy()),
        velocity={name: weights.to_torch(v.numpy()) for name, v in _velocities(model).items()},
        epoch=_epoch(workdir, step),
        forwards=step * _forwards_per_step(config),
        image_size_px=config.data.image_size_px,
    )


def _epoch(workdir, step):
    """Epochs done at a step; 0 if neither metrics.jsonl nor imported.json says it."""
    path = os.path.join(workdir, IMPORTED)
    lines = lines_of(os.path.join(workdir, "metrics.jsonl"))
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            lines = [json.load(file), *(x for x in lines if x["step"] == step)]
    return int(max((line["epoch"] for line in lines if line["step"] == step), default=0))


def _checkpoints(model, workdir, write):
    encoder = os.path.join(workdir, "encoder.keras")
    return checkpoint.Checkpoints(model, model.encoder_q, encoder, write=write)


def _velocities(model):
    """SGD's momentum buffers, by torch's names of their parameters."""
    optimizer, encoder = model.optimizer, model.encoder_q
    by_path = dict(
        zip((v.path for v in encoder.trainable_variables), optimizer.velocities, strict=True)
    )
    return {
        name: by_path[v.path] for name, v in weights.named_variables(encoder).items() if v.trainable
    }


def _forwards_per_step(config):
    """Batches that a step sends through the query encoder: 2 if the loss is symmetric, else 1."""
    return 2 if config.model.symmetric else 1


def require_new(workdir: str):
    """Raises ValueError if a folder already has a run."""
    for name in RUN:
        if tf.io.gfile.exists(os.path.join(workdir, name)):
            raise ValueError(
                f"`--output` must be a folder without a run. Received: {workdir!r}, which has "
                f"{name}. Choose another folder."
            )
