"""The tasks that train on random crops: the linear protocol, and fine-tuning end to end."""

import math
import os

import numpy as np

from moco_tf import encoders
from moco_tf.data import labelled
from moco_tf.data.recipes import standard
from moco_tf.evaluation.classifier import Classifier
from moco_tf.evaluation.config import Linear
from moco_tf.evaluation.context import Outcome
from moco_tf.evaluation.tasks import softmax
from moco_tf.log import log
from moco_tf.optim import SGD
from moco_tf.training import callbacks, fit
from moco_tf.training import plan as plan_lib
from moco_tf.training.config import Length

DIVERGED = (
    "This learning rate does not suit these features. --task=linear_cached finds one that does, of "
    "many at once."
)


def prepare(context):
    """`(layout, plan)` of the training.

    Raises:
        ValueError: for a batch that does not divide, or is larger than the data.
    """
    config = context.config
    plan = plan_lib.make_plan(
        config, context.pair.train.num_examples, Length(epochs=config.test_every_epochs)
    )
    layout = plan_lib.make_layout(
        config, context.strategy, bn_group_size=getattr(config, "bn_group_size", None)
    )
    return layout, plan


def run_supervised(context, layout, plan, stop):
    """Trains a classifier on the backbone, or resumes, and tests it; saves it as classifier.keras.

    Args:
        context: `Context` of a `config.Linear` (backbone frozen) or `config.Finetune`.
        layout, plan: of `prepare`.
        stop: function that says whether to stop early.

    Returns:
        `Outcome`.

    Raises:
        loop.Stopped: if it was asked to stop before the end.
    """
    config, pair, strategy, workdir = (
        getattr(context, name) for name in ("config", "pair", "strategy", "workdir")
    )
    frozen = isinstance(config, Linear)
    with strategy.scope():
        model = _model(context, plan, frozen)
    before = encoders.digest(model.backbone)
    run = context.forward(model.features_and_logits)
    address = pair.addresses[1]

    def test():
        found = context.outputs(run, pair.test, address, None)
        hits = found.x[1].argmax(axis=1) == found.labels
        return {"test_top1": float(np.mean(hits[found.ok]))}

    fit.fit(
        model,
        os.path.join(workdir, "classifier.keras"),
        config,
        plan,
        _dataset(context, layout),
        _step(context, model),
        test,
        stop,
        remedy=DIVERGED if frozen else "Start a new workdir with a lower learning rate.",
        max_bad_fraction=config.data.max_bad_fraction,
    )
    if frozen and encoders.digest(model.backbone) != before:
        raise AssertionError("A frozen backbone must not change, but it did: please report this.")
    lines = callbacks.read_metrics(os.path.join(workdir, "metrics.jsonl"))
    found = context.outputs(run, pair.test, address, "test")
    return _outcome(context, plan, frozen, found, lines)


def _model(context, plan, frozen):
    config = context.config
    encoder = context.loaded.encoder
    if frozen:
        backbone = encoder.backbone
    else:
        backbone = encoders.finetuned_backbone(encoder, config.bn_group_size)
    model = Classifier(backbone, context.pair.num_classes, frozen, config.seed)
    model.compile(
        SGD(
            plan_lib.make_schedule(config, plan.steps_per_epoch),
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
            factors={} if frozen else {"fc": config.head_factor},
        )
    )
    model.optimizer.build(model.trainable_variables)
    return model


def _dataset(context, layout):
    config = context.config

    def dataset(host, start_step):
        return labelled.labelled_dataset(
            context.pair.train,
            standard.training_crop(context.crop.recipe),
            layout,
            host=host,
            image_size_px=context.crop.image_size_px,
            num_classes=context.pair.num_classes,
            seed=config.seed,
            start_step=start_step,
            shuffle_buffer=config.data.shuffle_buffer,
        )

    return dataset


def _step(context, model):
    def step(batch):
        x = labelled.normalized(context.crop.recipe, batch["x"])
        return model.step(batch | {"x": x})

    return step


def _outcome(context, plan, frozen, found, lines):
    config = context.config
    epochs = plan.stop / plan.steps_per_epoch
    kind = "linear on the frozen backbone" if frozen else "fine-tuned end to end"
    protocol = f"{kind}, random crops, {epochs:g} epochs of {config.batch_size}"
    if plan.stop < plan.total:
        protocol += f", stopped early of {plan.total / plan.steps_per_epoch:g}"
    protocol += f", lr {config.optimizer.learning_rate:g}"
    steps = [line for line in lines if "loss" in line]
    tests = [line for line in lines if "test_top1" in line]
    last = [line["loss"] for line in steps[-plan.steps_per_epoch :]]
    details = {"training_loss": float(np.mean(last))}
    if frozen:
        details["backbone_unchanged"] = True
    chance = math.log(context.pair.num_classes)
    if details["training_loss"] > 2 * chance:
        details["diverged"] = True
        log.warning(
            "The training loss of the last epoch, %.3g, is far above chance, %.3g: it diverged. %s",
            *(details["training_loss"], chance),
            DIVERGED if frozen else "Lower the learning rate.",
        )
        protocol += ", DIVERGED"
    curves = [
        ("training loss", "step", [s["step"] for s in steps], {"loss": [s["loss"] for s in steps]}),
        (
            *("test top-1", "step", [t["step"] for t in tests]),
            {"top-1": [t["test_top1"] for t in tests]},
        ),
    ]
    return Outcome(
        softmax(found.x[1][found.ok]),
        found.labels[found.ok],
        found.x[0][found.ok],
        np.flatnonzero(found.ok),
        protocol,
        details,
        curves,
    )
