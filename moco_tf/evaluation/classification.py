"""Base class of classification tasks: data, features, accuracies, report."""

import os
from typing import NamedTuple

import numpy as np

from moco_tf import distribute, encoders, workers
from moco_tf.data import examination
from moco_tf.data.sources import Stream
from moco_tf.evaluation import labelled, report, results
from moco_tf.evaluation.cache import Cache
from moco_tf.evaluation.config import check_data
from moco_tf.evaluation.serving import export_classification
from moco_tf.evaluation.task import Task
from moco_tf.log import log
from moco_tf.probes import features


class Outcome(NamedTuple):
    """Predictions for the N test images that can be decoded.

    Attributes:
        scores: score of each class, float NxK in [0, 1]; each row adds up to 1.
        labels: true classes, int64 N.
        features: backbone features, float32 NxC, in memory or `feature_files.Rows` on disk.
        numbers: numbers of the images in the test source, int64 N, ascending.
        protocol: the protocol in a few words.
        details: JSON-ready dict of further results.
        curves: curves of the report, a list of `(title, x label, x, dict of y by name)`.
    """

    scores: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    numbers: np.ndarray
    protocol: str
    details: dict
    curves: list


class Classification(Task):
    """A task that gives each test image a score for each class; subclasses define `classify`.

    Attributes:
        splits: `labelled.Labelled` of the training and test images.
        crop: `encoders.Preprocessing` of the center crops.
        outcome: `Outcome`; set by `test`.
    """

    TITLES = {"top1": "top-1", "top5": "top-5", "mean_per_class": "mean per class"}  # noqa: RUF012

    @classmethod
    def check(cls, config):
        super().check(config)
        check_data(config)

    def load(self, checkpoint):
        loaded = encoders.load(checkpoint, self.config.random_init, self.config.seed)
        encoders.require_backbone(loaded, self.config.backbone)
        return loaded

    def prepare(self):
        data = self.config.data
        index_dir = os.path.join(self.workdir, "sources")
        self.splits = workers.chief_first(
            self.strategy, lambda: labelled.open_pair(data, self.loaded.run, index_dir)
        )
        self.crop = encoders.preprocessing(
            self.loaded, data.image_size_px, data.resize_px, data.recipe
        )
        log.info(
            "%s encoder %s: %d classes, %d training and %d test images, crops of %d px from %d px",
            "Untrained" if self.config.random_init else "Trained",
            self.loaded.path,
            self.splits.num_classes,
            self.splits.train.num_examples,
            self.splits.test.num_examples,
            self.crop.image_size_px,
            self.crop.resize_px,
        )

    def classify(self) -> Outcome:
        """Predicts the test images."""
        raise NotImplementedError(f"{type(self).__name__} must define `classify`.")

    def test(self):
        self.outcome = self.classify()
        splits = self.splits
        return {
            "metrics": results.measure(self.outcome.scores, self.outcome.labels),
            "protocol": self.outcome.protocol,
            "details": self.outcome.details,
            "preprocessing": self.crop.to_dict(),
            "data": {
                "train": splits.addresses[0],
                "test": splits.addresses[1],
                "train_images": splits.train.num_examples,
                "test_images": len(self.outcome.labels),
                "classes": splits.num_classes,
                "chance": results.chance(self.outcome.labels),
                "class_names": list(splits.classes),
            },
        }

    def report(self, record):
        crop = (self.crop.resize_px, self.crop.image_size_px)
        report.write(self.workdir, record, self.outcome, self.splits, crop)

    @classmethod
    def export(cls, workdir, output):
        return export_classification(workdir, output)

    def forward(self, network):
        """Makes the function that runs a network on images, see `features.forward`."""
        return features.forward(network, self.crop.recipe, self.strategy)

    def outputs(self, predict_all, split, title):
        """Checked `features.Outputs` of a split.

        Args:
            predict_all: function from `forward`.
            split: "train" or "test".
            title: title of the progress bar; None shows none.
        """
        outputs = features.extract(
            predict_all,
            getattr(self.splits, split),
            image_size_px=self.crop.image_size_px,
            resize_px=self.crop.resize_px,
            batch=self.config.rows,
            title=title,
        )
        self._check(outputs, split)
        return outputs

    def encoder_outputs(self):
        """Features and embeddings of the training and the test images, cached on disk."""
        with self.strategy.scope():
            network = self.loaded.encoder.features_and_embeddings()
        predict_own = features.forward(
            network, self.crop.recipe, self.strategy, distribute.make_predict_own
        )
        folder = self.config.data.features_dir
        if folder is None:
            folder = os.path.join(self.loaded.folder, "features")
        cache = Cache(folder, self.strategy)
        train = self._cached_outputs(cache, predict_own, "train")
        test = self._cached_outputs(cache, predict_own, "test")
        features.warn_if_equal(train.x[0])
        splits = self.splits
        labelled.check_classes(train.labels[train.ok], splits.addresses[0], splits.classes)
        return train, test

    def _cached_outputs(self, cache, predict_own, split):
        recipe = self.crop.recipe
        facts = {
            "encoder": self.loaded.digest,
            "source": self._address(split),
            "crop": [self.crop.image_size_px, self.crop.resize_px, *recipe.mean, *recipe.std],
            "classes": list(self.splits.classes),  # their order numbers the labels
        }
        source = getattr(self.splits, split)
        batch = features.rows_of_a_process(self.config.rows, source.num_examples, self.strategy)

        def extract(files):
            features.extract_to(
                files,
                predict_own,
                source,
                self.strategy,
                image_size_px=self.crop.image_size_px,
                resize_px=self.crop.resize_px,
                batch=batch,
                title=split,
            )

        outputs = cache.outputs(facts, source, batch, extract)
        self._check(outputs, split)
        return outputs

    def _address(self, split):
        return self.splits.addresses[("train", "test").index(split)]

    def _check(self, outputs, split):
        """Refuses labels outside the classes and too many bad images; logs the bad ones."""
        source, address = getattr(self.splits, split), self._address(split)
        labelled.check_read(outputs.labels[outputs.ok], address, self.splits.num_classes)
        bad = np.flatnonzero(~outputs.ok)
        if len(bad):
            names = [] if isinstance(source, Stream) else [source.name(int(i)) for i in bad[:3]]
            names = [name.numpy().decode() for name in names]
            such_as = ", ".join(f"{name}{examination.why_bad(source, name)}" for name in names)
            log.warning(
                "%d images of %s cannot be decoded and are skipped: %s", len(bad), address, such_as
            )
        limit = self.config.data.max_bad_fraction
        if len(bad) > limit * max(len(outputs.ok), 1000) or len(bad) == len(outputs.ok):
            raise ValueError(
                f"At most --config.data.max_bad_fraction={limit} of the images may be undecodable. "
                f"Received: {len(bad)} of {len(outputs.ok)} in {address!r}. Fix the data or "
                "raise the limit."
            )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis of logits, NxK."""
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)
