"""The training loop around one linear layer: runs of a second, to test what all tasks share."""

import pathlib
import types

import keras
import numpy as np
import tensorflow as tf

from moco_tf import optim
from moco_tf.data import bad_images
from moco_tf.evaluation.classifier import Classifier
from moco_tf.training import fit as fitting
from moco_tf.training.plan import Plan

BATCH = 8
CLASSES = 5


def fit(
    workdir,
    steps=8,
    *,
    strategy=None,
    stop=lambda: False,
    plant=lambda model, batch: batch,
    log_every_steps=1,
    checkpoint_every_steps=2,
    **options,
):
    """Trains or resumes a linear classifier of random vectors; returns its last step.

    Args:
        workdir: folder of the run.
        steps: step where it ends; an epoch has four.
        strategy: `tf.distribute.Strategy`; None for one device.
        stop: as for `moco_tf.training.fit.fit`.
        plant: function of the model and a replica's batch to the batch to train on.
        log_every_steps: steps of a round, unless an epoch or a checkpoint ends it before.
        checkpoint_every_steps: steps between checkpoints.
        options: more for `moco_tf.training.fit.fit`.
    """
    strategy = strategy or tf.distribute.get_strategy()
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        images = keras.Input((4,))
        backbone = keras.Model(images, keras.layers.Identity(dtype="float32")(images))
        model = Classifier(backbone, CLASSES, frozen=False)
        model.compile(optim.SGD(optim.Steps(0.1, [6]), momentum=0.9))
        model.optimizer.build(model.trainable_variables)
    pathlib.Path(workdir).mkdir(exist_ok=True)
    return fitting.fit(
        model,
        str(pathlib.Path(workdir) / "network.keras"),
        types.SimpleNamespace(
            batch_size=BATCH,
            deterministic=False,
            log_every_steps=log_every_steps,
            checkpoint_every_steps=checkpoint_every_steps,
        ),
        Plan(4 * BATCH, 4, max(steps, 8), steps, 0),
        lambda host, start: _batches(start, BATCH // replicas, replicas),
        lambda batch: model.step(plant(model, batch)),
        None,
        stop,
        **options,
    )


def _batches(start, rows, replicas):
    """Rows of a step, one replica's after the other; a pure function of the step."""

    def batch(step):
        seed = tf.stack([step, tf.constant(0, tf.int64)])
        x = tf.random.stateless_normal([replicas, rows, 4], seed)
        return {
            "x": x,
            "label": tf.argmax(x, 2) + tf.cast(x[..., 0] > 0, tf.int64),
            "ok": tf.fill([replicas, rows], True),
            "name": tf.zeros([replicas, rows, bad_images.NAME_BYTES], tf.uint8),
        }

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    return steps.map(batch).unbatch()
