"""Detection task: trains an R-CNN or a RetinaNet on a pre-trained backbone and tests it."""

import json
import math
import os

from moco_tf import distribute, encoders, storage, workers
from moco_tf.data.labelled import fill_of
from moco_tf.detection import config as configs
from moco_tf.detection import report
from moco_tf.detection.build import make_detector
from moco_tf.detection.data import annotations as records
from moco_tf.detection.data import densepose_surface, pipeline
from moco_tf.detection.data.classes import match_classes
from moco_tf.detection.model.detector import (
    estimate_statistics,
)
from moco_tf.detection.model.network import make_network
from moco_tf.detection.model.retinanet import make_retinanet
from moco_tf.detection.scoring import cityscapes as cityscapes_scoring
from moco_tf.detection.scoring import coco as coco_scoring
from moco_tf.detection.scoring import pck
from moco_tf.detection.serving import export_detection
from moco_tf.detection.tester import IOU_TYPES, Tester
from moco_tf.evaluation.task import Task
from moco_tf.optim import SGD
from moco_tf.training import fit
from moco_tf.training import plan as plans
from moco_tf.training.config import Length

AVERAGE_PRECISIONS = ("AP", "AP50", "AP75")
NO_TRUTH = "the test images have no object that it could be measured by"


class DetectionTask(Task):
    """Trains or resumes a detector, and tests it; saves detector.keras and predictions.json.

    BN statistics are estimated on training batches before the last test. Checkpoints keep the
    running statistics, with which training continues.
    """

    name = "detection"
    Config = configs.Detection
    TITLES = {
        f"{output}_{ap.lower()}": f"{output} {ap}"
        for output in IOU_TYPES
        for ap in AVERAGE_PRECISIONS
    } | {f"keypoint_{name.lower()}": f"keypoint {name}" for name in pck.SHARES}
    trains = True

    @classmethod
    def check(cls, config):
        configs.check(config)

    def prepare(self):
        config = self.config
        self.recipe = encoders.recipe_of(self.loaded, config.data.recipe)
        self.layout = plans.make_layout(config, self.strategy)
        index_dir = os.path.join(self.workdir, "sources")
        self.train_set, self.test_set = workers.chief_first(
            self.strategy, lambda: _open(config, index_dir)
        )
        # A batch has an image several times if there are fewer images than rows.
        num_examples = max(self.train_set.num_examples, config.batch_size)
        self.plan = plans.make_plan(config, num_examples, Length(steps=config.test_every_steps))
        self.symmetry = surface = None
        if config.densepose:
            self.symmetry, surface = densepose_surface.load(config.densepose_files)
        with self.strategy.scope():
            self.model = self._make_model()
        quiet = not distribute.is_chief(self.strategy)
        if config.data.check_images:
            records.check(self.train_set, config.data.train, quiet=quiet)
            records.check(self.test_set, config.data.test, quiet=quiet)
        self.tester = Tester(
            config, self.model, self.strategy, self.test_set, fill_of(self.recipe), surface
        )

    def _make_model(self):
        config = self.config
        classes = len(self.train_set.classes)
        common = {
            "frozen_bn": config.frozen_bn,
            "random_init": config.random_init,
            "seed": config.seed,
        }
        if config.architecture == "retinanet":
            network = make_retinanet(self.loaded.encoder, classes, **common)
        else:
            network = make_network(
                self.loaded.encoder,
                config.architecture,
                classes,
                masks=config.masks,
                num_keypoints=len(self.train_set.keypoint_names),
                densepose=config.densepose,
                width_divisor=config.width_divisor,
                **common,
            )
        # Crops have no deterministic gradient on a GPU.
        static_shapes = distribute.on_tpu(self.strategy) or config.deterministic
        model = make_detector(config, network, self.recipe, static_shapes)
        model.compile(
            SGD(
                plans.make_schedule(config, 1),
                momentum=config.optimizer.momentum,
                weight_decay=config.optimizer.weight_decay,
                undecayed=("gamma", "beta"),  # BN's: WEIGHT_DECAY_NORM of detectron2
            )
        )
        model.optimizer.build(model.trainable_variables)
        return model

    @property
    def _path(self):
        return os.path.join(self.workdir, "detector.keras")

    def train(self, stop):
        fit.fit(
            self.model,
            self._path,
            self.config,
            self.plan,
            self._dataset,
            self.model.step,
            self._scores,
            stop,
            names=self.model.NAMES,
        )

    def _dataset(self, host, start_step):
        data = self.config.data
        return pipeline.detection_dataset(
            self.train_set,
            self.layout,
            fill=fill_of(self.recipe),
            short_px=data.short_px,
            longest_px=data.longest_px,
            pad_px=data.pad_px,
            square_px=data.square_px,
            max_objects=data.max_objects,
            repeat_threshold=data.repeat_threshold,
            host=host,
            seed=self.config.seed,
            start_step=start_step,
            symmetry=self.symmetry,
        )

    def _scores(self):
        """Test scores, for the curve."""
        if self.model.optimizer.iterations.numpy() == self.plan.stop:
            return {}  # the last test follows
        _, scores = self.tester.score()
        return {f"test_{name}": value for name, value in _metrics(scores).items()}

    def test(self):
        chief = distribute.is_chief(self.strategy)
        config, recipe, test_set = self.config, self.recipe, self.test_set
        if self.model.network.norms():
            following = distribute.batches(self.strategy, self._dataset, self.plan.stop)
            estimate_statistics(self.model, following, config.bn_statistics_batches)
        if chief:
            storage.save_model(self.model.network, self._path)
        self.predictions, self.scores = self.tester.score("test" if chief else None)
        return {
            "metrics": {
                name: {"value": value} if value == value else {"value": value, "why": NO_TRUTH}
                for name, value in _metrics(self.scores).items()
            },
            "protocol": _protocol(config, self.plan),
            "details": {output: _details(scores) for output, scores in self.scores.items()},
            "data": {
                "train": config.data.train,
                "test": config.data.test,
                "train_images": self.train_set.num_examples,
                "test_images": test_set.num_examples,
                "classes": len(test_set.classes),
                "class_names": list(test_set.classes),
                "keypoint_names": list(test_set.keypoint_names),
            },
            "normalization": {"mean": list(recipe.mean), "std": list(recipe.std)},
        }

    def report(self, record):
        self._write_predictions()
        report.write(self.workdir, record, self.test_set, self.predictions, self.scores)

    @classmethod
    def export(cls, workdir, output):
        return export_detection(workdir, output)

    def _write_predictions(self):
        """Writes predictions.json in COCO's format of results, one record for each detection."""
        by_output = [
            coco_scoring.results(self.test_set, self.predictions, IOU_TYPES[output])
            for output in self.tester.outputs
        ]
        records = []
        for parts in zip(*by_output, strict=True):
            record = {}
            for part in parts:
                record |= part
            records.append(record)
        path = os.path.join(self.workdir, "predictions.json")
        storage.write_text(path, json.dumps(records))


def _open(config, index_dir):
    """Opens the training and test `Annotations`; ValueError if they do not fit the config."""
    data = config.data
    options = {
        "masks": config.masks,
        "keypoints": config.keypoints,
        "densepose": config.densepose,
        "keypoint_pairs": data.keypoint_pairs,
        "keypoint_sigmas": data.keypoint_sigmas,
        "index_dir": index_dir,
    }
    train = records.open_annotations(
        data.train, training=True, keep_empty=data.keep_empty, **options
    )
    test = records.open_annotations(data.test, training=False, **options)
    test = match_classes(test, train)
    if config.metric == "cityscapes":
        cityscapes_scoring.require_truth(test)
    return train, test


def _metrics(scores):
    """AP, AP50 and AP75, or PCK, of each output, shares, by their names in the task's TITLES."""
    return {
        f"{output}_{name.lower()}": percent[name] / 100
        for output, percent in scores.items()
        for name in (*AVERAGE_PRECISIONS, *pck.SHARES)
        if name in percent
    }


def _details(scores):
    """The other scores, JSON-ready: percent, None for NaN."""

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(v) for name, v in value.items()}
        return None if math.isnan(value) else value

    return {name: plain(v) for name, v in scores.items() if isinstance(v, (float, dict))}


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
