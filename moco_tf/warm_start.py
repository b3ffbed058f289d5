"""Warm starts: a new run begins with another run's encoder, keys and queue, or a file's encoder.

The schedule, the optimizer's momentum and the number of steps are always the new run's.

Example:
    pretrain(config, "runs/v2_more", strategy, init=warm_start.init("runs/v2"))
"""

import dataclasses
import os

import keras
import numpy as np
import tensorflow as tf

from moco_tf import encoders
from moco_tf.backbones.encoder import Encoder
from moco_tf.contrastive import Contrastive
from moco_tf.interop import naming_schemes, torch_file, training_state
from moco_tf.log import log
from moco_tf.moco import MoCo
from moco_tf.momentum import MomentumContrast
from moco_tf.pretraining import mechanism
from moco_tf.pretraining.initial import Init
from moco_tf.training.checkpoint import step_path


@dataclasses.dataclass(frozen=True)
class State:
    """What a run can start from.

    Attributes:
        encoder: query encoder.
        key_encoder: key encoder, or None.
        queue: keys, float32 KxD, the oldest first; None without any.
    """

    encoder: Encoder
    key_encoder: Encoder | None = None
    queue: np.ndarray | None = None


def init(path: str) -> Init:
    """The `Init` of a path.

    Args:
        path: workdir of a train.py run or one of its checkpoints (encoder, key encoder, queue), an
            encoder's .keras (the encoder alone), or a PyTorch file (what it has of the three).
    """
    return Init(path, lambda model: load(path, model))


def load(path: str, model: Contrastive) -> dict:
    """Sets a new model's encoders and queue to what a run or a file has of them.

    Args:
        path: as in `init`.
        model: mechanism of the new run. Its backbone must be that of the path. If the heads differ,
            the backbone alone is taken.

    Returns:
        Dict of `taken`, in words, and `sha256` of the encoder.

    Raises:
        ValueError: if the path cannot be read, or its backbone is another one.
    """
    state = read(path)
    _require_backbone(model.encoder_q.backbone, state.encoder.backbone, path)
    same_head = _shapes(state.encoder.head) == _shapes(model.encoder_q.head)
    if same_head:
        model.encoder_q.set_weights(state.encoder.get_weights())
        taken = ["query encoder"]
    else:
        model.encoder_q.backbone.set_weights(state.encoder.backbone.get_weights())
        taken = ["backbone of the query encoder"]
        log.warning("%s has another head, or none, so this run starts with a new head.", path)
    if isinstance(model, MomentumContrast):
        if same_head and state.key_encoder is not None:
            model.encoder_k.set_weights(state.key_encoder.get_weights())
            taken.append("key encoder")
        else:
            model.encoder_k.set_weights(model.encoder_q.get_weights())
    if isinstance(model, MoCo) and same_head and state.queue is not None and len(state.queue):
        taken.append(f"{_fill(model, state.queue)} keys of the queue")
    return {"taken": taken, "sha256": encoders.digest(state.encoder)}


def read(path: str) -> State:
    """The `State` of a path, see `init`; raises ValueError if it cannot be read."""
    if not tf.io.gfile.exists(f"{step_path(path)}.index" if step_path(path) else path):
        raise ValueError(
            "`--init` must be the workdir of a train.py run, one of its checkpoints "
            "(WORKDIR/checkpoints/step-N), an encoder's .keras or a PyTorch file. Received: "
            f"{path!r}, which does not exist."
        )
    if path.endswith(torch_file.ENDINGS):
        saved = naming_schemes.parse(torch_file.read(path))
        encoder = training_state.encoder_of(saved, repr(path))
        if not saved.key:
            return State(encoder)
        key_encoder = training_state.encoder_of(dataclasses.replace(saved, query=saved.key))
        queue = saved.queue if saved.queue is None else np.roll(saved.queue, -saved.queue_ptr, 0)
        return State(encoder, key_encoder, queue)
    loaded = encoders.load(path)
    has_queue = loaded.run and mechanism.find(loaded.run.model.mechanism) is MoCo
    is_file = path.endswith(".keras")
    has_checkpoint = tf.io.gfile.exists(os.path.join(loaded.folder, "checkpoints"))
    if is_file or not has_queue or not has_checkpoint:
        return State(loaded.encoder)
    model = training_state.restored(loaded.folder, loaded.run, step_path(path))
    keys = np.roll(model.queue.numpy(), -int(model.queue_ptr.numpy()), 0)
    step = int(model.optimizer.iterations.numpy())
    random = round((1 - model.filled(step, loaded.run.batch_size)) * len(keys))
    return State(model.encoder_q, model.encoder_k, keys[random:])


def _require_backbone(model, other, path):
    """Raises ValueError unless a backbone has the weights of another one, by name and shape."""
    new, old = _shapes(model), _shapes(other)
    if new != old:
        pairs = zip(new, old, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), (len(new), len(old)))
        raise ValueError(
            "The run must have the backbone of `--init`: --config.model.backbone, "
            f"--config.model.width and --config.model.stem. Received: {model.name} with "
            f"{len(new)} arrays, but {other.name} with {len(old)} in {path!r}; the first that "
            f"differ are {first[0]} and {first[1]}."
        )


def _shapes(model: keras.layers.Layer | None) -> list[tuple]:
    """Name and shape of each weight of a layer; [] for None."""
    return [] if model is None else [(v.name, tuple(v.shape)) for v in model.weights]


def _fill(model, keys):
    """Puts the newest keys into a model's queue, the oldest first; returns how many."""
    size = model.queue_size
    keys = keys[-size:]
    queue = model.queue.numpy()
    queue[: len(keys)] = keys
    model.queue.assign(queue)
    model.queue_ptr.assign(len(keys) % size)
    return len(keys)
