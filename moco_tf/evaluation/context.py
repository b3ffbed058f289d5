"""What an evaluation works on, and what comes of it."""

import dataclasses
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from moco_tf import encoders
from moco_tf.data.sources import Stream
from moco_tf.evaluation import labelled
from moco_tf.evaluation.cache import Cache
from moco_tf.log import log
from moco_tf.probes import features


class Outcome(NamedTuple):
    """Of the N test images that can be decoded.

    Attributes:
        scores: float NxK in [0, 1], what speaks for each class; the rows add up to 1.
        labels: int64 N.
        features: float32 NxC.
        numbers: int64 N, ascending, of the images in the test source.
        protocol: the protocol in a few words.
        details: JSON-ready dict of what else was found.
        curves: list of `(title, x label, x, dict of y by name)`.
    """

    scores: np.ndarray
    labels: np.ndarray
    features: np.ndarray
    numbers: np.ndarray
    protocol: str
    details: dict
    curves: list


@dataclasses.dataclass
class Context:
    """The parts that all tasks share.

    Attributes:
        config: of the task, of evaluation/config.py.
        loaded: `encoders.Loaded`.
        pair: `labelled.Labelled`.
        crop: `encoders.Preprocessing`.
        strategy: of the encoder's variables.
        workdir: of the evaluation.
    """

    config: object
    loaded: encoders.Loaded
    pair: labelled.Labelled
    crop: encoders.Preprocessing
    strategy: tf.distribute.Strategy
    workdir: str

    def forward(self, network):
        """`features.forward` of a network made in the strategy's scope."""
        return features.forward(network, self.crop.recipe, self.strategy)

    def outputs(self, run, source, address, title):
        """`features.Outputs` of a source by a function of `forward`, checked."""
        return self._checked(self._extract(run, source, title), source, address)

    def _extract(self, run, source, title):
        return features.extract(
            run,
            source,
            image_size_px=self.crop.image_size_px,
            resize_px=self.crop.resize_px,
            batch=self.config.rows,
            title=title,
        )

    def encoder_outputs(self):
        """Of training and test images, by the encoder's backbone and projection; kept on disk."""
        with self.strategy.scope():
            network = self.loaded.encoder.features_and_embeddings()
        run = self.forward(network)
        folder = self.config.data.features_dir or os.path.join(
            os.path.dirname(self.loaded.path), "features"
        )
        cache = Cache(folder, self.strategy)
        recipe = self.crop.recipe
        crop = [self.crop.image_size_px, self.crop.resize_px, *recipe.mean, *recipe.std]
        both = []
        for title, address in zip(("train", "test"), self.pair.addresses):
            source = getattr(self.pair, title)
            facts = {"encoder": self.loaded.digest, "source": address, "crop": crop}
            facts["classes"] = list(self.pair.classes)  # labels are in their order
            found = cache.outputs(facts, source, lambda s=source, t=title: self._extract(run, s, t))
            both.append(self._checked(found, source, address))
        train = both[0]
        labelled.check_classes(train.labels[train.ok], self.pair.addresses[0], self.pair.classes)
        return both

    def _checked(self, found, source, address):
        """Refuses labels outside the classes and too many bad images; names some of the bad."""
        labelled.check_read(found.labels[found.ok], address, self.pair.num_classes)
        bad = np.flatnonzero(~found.ok)
        if len(bad):
            names = [] if isinstance(source, Stream) else [source.name(int(i)) for i in bad[:3]]
            such_as = ", ".join(name.numpy().decode() for name in names)
            log.warning(
                "%d images of %s cannot be decoded and are left out: %s", len(bad), address, such_as
            )
        limit = self.config.data.max_bad_fraction
        if len(bad) > limit * max(len(found.ok), 1000) or len(bad) == len(found.ok):
            raise ValueError(
                f"At most data.max_bad_fraction={limit} of the images may be undecodable. "
                f"Received: {len(bad)} of {len(found.ok)} in {address!r}. Mend the data or raise "
                "the limit."
            )
        return found


def prepare(config, checkpoint, workdir, strategy):
    """The `Context` of an evaluation.

    Args:
        config: checked, of a task.
        checkpoint: as of `encoders.load`.
        workdir: folder of the evaluation.
        strategy: of `strategies.make_strategy`.

    Raises:
        ValueError: for what `encoders` and `labelled` refuse.
    """
    with strategy.scope():
        loaded = encoders.load(checkpoint, config.random_init, config.seed)
    encoders.require_backbone(loaded, config.backbone)
    data, run = config.data, loaded.run
    pair = labelled.open_pair(data, run)
    crop = encoders.preprocessing(loaded, data.image_size_px, data.resize_px, data.recipe)
    log.info(
        "%s, of %s: %d classes; %d training and %d test images, %d px of %d",
        "Untrained" if config.random_init else "Trained",
        loaded.path,
        pair.num_classes,
        pair.train.num_examples,
        pair.test.num_examples,
        crop.image_size_px,
        crop.resize_px,
    )
    return Context(config, loaded, pair, crop, strategy, workdir)
