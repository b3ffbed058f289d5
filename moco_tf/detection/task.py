"""A detection, from its config to results.json and report.html."""

import dataclasses
import json
import math
import os
import time

import tensorflow as tf

from moco_tf import distribute, encoders, schema, storage
from moco_tf.data.labelled import fill_of, normalized
from moco_tf.detection import report
from moco_tf.detection.data import annotations as records
from moco_tf.detection.data import densepose_surface, pipeline
from moco_tf.detection.model.detector import (
    RCNN_SETTINGS,
    Detector,
    RCNNSettings,
    estimate_statistics,
)
from moco_tf.detection.model.network import make_network
from moco_tf.detection.model.retinanet import RetinaNetDetector, make_retinanet
from moco_tf.detection.scoring import cityscapes as cityscapes_scoring
from moco_tf.detection.scoring import coco as coco_scoring
from moco_tf.detection.tester import KINDS, Tester
from moco_tf.evaluation import results
from moco_tf.optim import SGD
from moco_tf.training import checkpoint, fit
from moco_tf.training import plan as plan_lib
from moco_tf.training.config import Length


def detect(config, encoder, workdir, strategy, stop=lambda: False):
    """Trains or resumes a detector on a pre-trained backbone, and tests it.

    BN's statistics are estimated anew before the last test; the checkpoints, from which training
    goes on, keep the running ones.

    Args:
        config: checked `Detection`.
        encoder: as of `encoders.load`.
        workdir: folder of the run, local or gs://.
        strategy: of `strategies.make_strategy`.
        stop: function that says whether to stop early.

    Returns:
        What results.json holds.

    Raises:
        loop.Stopped: if it was asked to stop before the end.
        ValueError: for what `encoders` and `records` refuse, a batch that does not divide, or a
            backbone with the stem of small images.
    """
    began = time.time()
    with strategy.scope():
        loaded = encoders.load(encoder)
    recipe = encoders.recipe_of(loaded, config.data.recipe)
    layout = plan_lib.make_layout(config, strategy)
    train, test = _open(config)
    symmetry = surface = None
    if config.densepose:
        symmetry, surface = densepose_surface.load(config.densepose_files)
    with strategy.scope():
        model = _model(config, loaded.encoder, recipe, strategy, train)
    chief = distribute.is_chief(strategy)
    if config.data.check_images:
        for annotations, address in ((train, config.data.train), (test, config.data.test)):
            records.check(annotations, address, quiet=not chief)
    made_by = {"task": "detection", "encoder": loaded.digest, **schema.to_dict(config)}
    checkpoint.claim_workdir(made_by, workdir, strategy)

    # Fewer images than a batch are seen several times in it.
    plan = plan_lib.make_plan(
        config,
        max(train.num_examples, config.batch_size),
        Length(steps=config.test_every_steps),
    )
    path = os.path.join(workdir, "detector.keras")
    dataset = _dataset(config, train, layout, recipe, symmetry)
    tester = Tester(config, model, strategy, test, fill_of(recipe), surface)

    def scores():
        if model.optimizer.iterations.numpy() == plan.stop:
            return {}  # the last test follows
        return {f"test_{name}": value for name, value in _metrics(tester.score()[1]).items()}

    done = fit.fit(
        *(model, path, config, plan, dataset, model.step, scores, stop), names=model.NAMES
    )
    if model.network.norms():
        following = fit.batches(strategy, dataset, done)
        estimate_statistics(model, following, config.bn_statistics_batches)
    if chief:
        storage.save_model(model.network, path)
    predictions, scores = tester.score("test" if chief else None)
    found = results.record(
        *("detection", config, loaded, began),
        metrics={name: {"value": value} for name, value in _metrics(scores).items()},
        protocol=_protocol(config, plan),
        details={name: _details(of) for name, of in scores.items()},
        data={
            "train": config.data.train,
            "test": config.data.test,
            "train_images": train.num_examples,
            "test_images": test.num_examples,
            "classes": len(test.classes),
            "class_names": list(test.classes),
            "keypoint_names": list(test.keypoint_names),
        },
        normalization={"mean": list(recipe.mean), "std": list(recipe.std)},
    )
    if chief:
        _write_predictions(workdir, test, predictions, tester.kinds)
        results.write(workdir, found)
        report.write(workdir, found, test, predictions, scores)
    return found


def _open(config):
    """Training and test `Annotations`; ValueError unless they fit together and the metric."""
    options = {name: getattr(config, name) for name in ("masks", "keypoints", "densepose")}
    train = records.open_annotations(config.data.train, training=True, **options)
    test = records.open_annotations(config.data.test, training=False, **options)
    for name in ("classes", "keypoint_names"):
        names = [list(getattr(annotations, name)) for annotations in (train, test)]
        if names[0] != names[1]:
            strange = sorted(set(names[0]) ^ set(names[1])) or ["another order"]
            raise ValueError(
                f"Training and test images must have the same {name.replace('_', ' ')}. Received: "
                f"{len(names[0])} and {len(names[1])}; the difference: {', '.join(strange[:5])}."
            )
    if config.keypoints:
        coco_scoring.require_joints(test)
    if config.metric == "cityscapes":
        cityscapes_scoring.require_truth(test)
    return train, test


def _model(config, encoder, recipe, strategy, annotations):
    classes = len(annotations.classes)
    options = {name: getattr(config, name) for name in ("frozen_bn", "random_init", "seed")}
    if config.architecture == "retinanet":
        network = make_retinanet(encoder, classes, **options)
    else:
        network = make_network(
            *(encoder, config.architecture, classes),
            masks=config.masks,
            num_keypoints=len(annotations.keypoint_names),
            densepose=config.densepose,
            width_divisor=config.width_divisor,
            **options,
        )
    model = make_detector(config, network, recipe, isinstance(strategy, tf.distribute.TPUStrategy))
    model.compile(
        SGD(
            plan_lib.make_schedule(config, 1),
            momentum=config.optimizer.momentum,
            weight_decay=config.optimizer.weight_decay,
            undecayed=("gamma", "beta"),  # BN's, as of detectron2's WEIGHT_DECAY_NORM
        )
    )
    model.optimizer.build(model.trainable_variables)
    return model


def make_detector(config, network, recipe, products=False):
    """The `Detector` of a `Detection`'s kind.

    Args:
        config: `Detection`; where it has no numbers they are those of its kind.
        network: as of `make_network` or `make_retinanet`.
        recipe: whose normalisation.
        products: as of `Detector`.
    """
    given = {f.name: getattr(config, f.name) for f in dataclasses.fields(RCNNSettings)}
    given = {name: value for name, value in given.items() if value is not None}
    numbers = dataclasses.replace(RCNN_SETTINGS[config.architecture], **given)
    detector = RetinaNetDetector if config.architecture == "retinanet" else Detector
    return detector(network, lambda x: normalized(recipe, x), numbers, products, config.seed)


def _dataset(config, annotations, layout, recipe, symmetry):
    data = config.data

    def dataset(host, start_step):
        return pipeline.detection_dataset(
            annotations,
            layout,
            fill=fill_of(recipe),
            short_px=data.short_px,
            longest_px=data.longest_px,
            pad_px=data.pad_px,
            square_px=data.square_px,
            max_objects=data.max_objects,
            repeat_threshold=data.repeat_threshold,
            host=host,
            seed=config.seed,
            start_step=start_step,
            symmetry=symmetry,
        )

    return dataset


def _metrics(scores):
    """AP, AP50 and AP75 of what is predicted, shares, by their names in `results.NAMES`."""
    return {
        f"{of}_{name.lower()}": found[name] / 100
        for of, found in scores.items()
        for name in ("AP", "AP50", "AP75")
    }


def _details(scores):
    """The other scores as JSON has them: percent, null for NaN."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(v) for name, v in value.items()}
        return None if math.isnan(value) else value

    return {name: plain(v) for name, v in scores.items() if isinstance(v, (float, dict))}


def _write_predictions(workdir, annotations, predictions, kinds):
    """predictions.json: COCO's format of results; one record has all that a detection has."""
    parts = [coco_scoring.results(annotations, predictions, KINDS[of]) for of in kinds]
    merged = [{key: value for part in same for key, value in part.items()} for same in zip(*parts)]
    storage.write_text(os.path.join(workdir, "predictions.json"), json.dumps(merged))


def _protocol(config, plan):
    heads = [name for name in ("masks", "keypoints", "densepose") if getattr(config, name)]
    network = "RetinaNet" if config.architecture == "retinanet" else f"R-CNN {config.architecture}"
    text = " with ".join([network, *([" and ".join(heads)] if heads else [])])
    text += f", end to end, {plan.stop} steps of {config.batch_size} images"
    if plan.stop < plan.total:
        text += f", stopped early of {plan.total}"
    text += f", lr {config.optimizer.learning_rate:g}"
    text += ", frozen BN" if config.frozen_bn else ""
    text += ", no flips" if config.densepose and not config.densepose_files else ""
    return f"{text}; short side {config.data.test_short_px} px; AP of {config.metric}"
