"""Monitor of an encoder during training: kNN accuracy and a linear probe."""

import keras
import numpy as np
import tensorflow as tf

from moco_tf import distribute
from moco_tf.backbones.encoder import Encoder
from moco_tf.backbones.precision import without_tf32
from moco_tf.data import sources, split
from moco_tf.data.sources import Stream
from moco_tf.log import log
from moco_tf.probes import features, knn
from moco_tf.probes import linear as linear_probe
from moco_tf.probes.features import make_extract

HELD_OUT = 0.1  # share of each class that `hold_out` splits off


class Probe:
    """Measures an encoder on labelled images, by nearest neighbours and a linear classifier.

    Both work on features of center crops, computed in inference mode. The encoder learns nothing
    from them. All replicas measure with the first one's BN statistics, which are those saved.

    Args:
        encoder: `Encoder`, or any model from images to embeddings if features is "projection".
        bank, queries: `Source`s with labels of the same classes, such as
            `data.sources.from_arrays(images, labels)`.
        recipe: `Recipe` that the encoder is trained with, such as `recipes.moco.v2`; gives the
            normalization.
        image_size_px: side of the crops.
        resize_px: short side before the crop; 8/7 of the side by default.
        features: "backbone" (before the head) or "projection" (after it).
        neighbours: k.
        temperature: temperature of the votes.
        linear: whether to train the linear classifier, too.
        strategy: strategy of the encoder's variables; by default the current one.
    """

    def __init__(
        self,
        encoder,
        bank,
        queries,
        recipe,
        *,
        image_size_px,
        resize_px=None,
        features="backbone",
        neighbours=200,
        temperature=0.1,
        linear=False,
        strategy=None,
    ):
        queries = sources.renumber_labels(queries, like=bank)
        resize_px = resize_px or round(image_size_px * 8 / 7)
        self.neighbours, self.temperature, self.linear = neighbours, temperature, linear
        self.strategy = strategy or tf.distribute.get_strategy()
        statistics = encoder.non_trainable_variables
        self.take_first = distribute.make_take_first(self.strategy, statistics)
        run = _forward(encoder, features, recipe, self.strategy)
        crop = {"image_size_px": image_size_px, "resize_px": resize_px}
        self.extract = {
            which: make_extract(run, source, **crop)
            for which, source in (("bank", bank), ("queries", queries))
        }
        self.warned = set()

    def __call__(self):
        """Dict of `knn` and, if asked for, `linear`: accuracies, shares in [0, 1]."""
        self.take_first()  # as they are saved
        with without_tf32():  # as evaluate.py measures
            (bank, bank_labels), (queries, labels) = map(self._features, self.extract)
            if "equal" not in self.warned:
                self.warned.add("equal")
                features.warn_if_equal(bank)
            options = dict(neighbours=self.neighbours, temperature=self.temperature)
            scores = {"knn": knn.accuracy(bank, bank_labels, queries, labels, **options)}
            if self.linear:
                scores["linear"] = linear_probe.probe(bank, bank_labels, queries, labels)
        return scores

    def _features(self, which):
        """Features and labels of the images that can be decoded."""
        outputs = self.extract[which]()
        bad = int(np.sum(~outputs.ok))
        if bad and which not in self.warned:
            self.warned.add(which)
            log.warning("%d images of the %s cannot be decoded and are skipped.", bad, which)
        return outputs.x[0][outputs.ok], outputs.labels[outputs.ok]


class Monitor(keras.callbacks.Callback):
    """A `Probe` before `model.fit` starts and after every few epochs, added to the logs.

    Put it before callbacks that use its scores, such as `CSVLogger`.

    Args:
        every_epochs: epochs between measurements; those between log the last scores again.
        **kwargs: arguments of `Probe` except `encoder` (the model's query encoder) and `strategy`.
    """

    def __init__(self, every_epochs=1, **kwargs):
        super().__init__()
        self.every_epochs, self.kwargs = every_epochs, kwargs

    def on_train_begin(self, logs=None):
        self.probe = Probe(
            self.model.encoder_q, **self.kwargs, strategy=self.model.distribute_strategy
        )
        self._measure("untrained")

    def on_epoch_end(self, epoch, logs):
        if (epoch + 1) % self.every_epochs == 0:
            self._measure(f"epoch {epoch + 1}")
        logs.update(self.scores)  # each epoch has all columns, as CSVLogger and History expect

    def _measure(self, when):
        self.scores = self.probe()
        log.info("%s: %s", when, ", ".join(f"{name} {v:.1%}" for name, v in self.scores.items()))


def hold_out(config, source):
    """Splits off the queries of the monitor where the data have labels but no held-out split.

    A seeded tenth of each class, which evaluations of the run test on, too.

    Args:
        config: `pretraining.config.Config`.
        source: `Source` or `Stream` of the run.

    Returns:
        `(source, held_out)`: the images to train on, and the queries or None.
    """
    if config.monitor.source != "auto" or config.monitor.every is None:
        return source, None
    if isinstance(source, Stream) or source.labels is None or len(set(source.labels)) < 2:
        return source, None
    if sources.labelled_splits(config.data.source, config.data.data_dir):
        return source, None
    rest, held_out = split.hold_out(source, HELD_OUT, config.seed)
    return (rest, held_out) if held_out.num_examples else (source, None)


def make_scores(config, model, recipe, strategy, plan, held_out=None, index_dir=None):
    """The `Probe` of a config; None, with a line in the log, if it is off or nothing has labels.

    Args:
        config: `pretraining.config.Config`.
        model: mechanism of the run.
        recipe: `Recipe` of its query views.
        strategy: strategy of the model.
        plan: `Plan` of the run.
        held_out: `(bank, queries)` of `hold_out`, or None.
        index_dir: folder in which sources keep what takes long to find out.

    Its scores also have `knn_chance`, the share of the most frequent class, and `knn_classes`.
    """
    monitor, data = config.monitor, config.data
    if not plan.monitor_every:
        log.info("The kNN monitor is off.")
        return None
    bank, queries = held_out or _open(monitor, data, index_dir)
    if bank is None:
        return None
    num_classes = len(np.unique(bank.labels))
    if num_classes < 2:
        rule = "The kNN monitor needs images of two classes or more"
        if monitor.source != "auto":
            raise ValueError(f"{rule}. Received: one, in {monitor.source!r}.")
        log.info("The kNN monitor is off. %s; its bank has one.", rule)
        return None
    chance = float(np.bincount(queries.labels).max() / queries.num_examples)
    _describe(monitor, bank, queries, num_classes, chance)
    probe = Probe(
        model.encoder_q,
        bank,
        queries,
        recipe,
        image_size_px=data.image_size_px,
        resize_px=monitor.resize_px,
        features=monitor.features,
        neighbours=monitor.neighbours,
        temperature=monitor.temperature,
        linear=monitor.linear,
        strategy=strategy,
    )
    return lambda: probe() | {"knn_chance": chance, "knn_classes": float(num_classes)}


def _open(monitor, data, index_dir):
    """Bank and queries of a config; None twice, with a line in the log, if the monitor is off."""
    if monitor.source == "auto":
        addresses = sources.labelled_splits(data.source, data.data_dir)
    else:
        addresses = monitor.source.split(",")
    if addresses is None:
        log.info(
            "The kNN monitor is off: %s has no labelled splits. Training needs none. If you have "
            "labelled images, name two sets by --config.monitor.source=BANK,QUERIES.",
            data.source,
        )
        return None, None
    if len(addresses) != 2:
        raise ValueError(
            "`--config.monitor.source` must be auto, off or BANK,QUERIES, two addresses with a "
            f"comma between. Received: {monitor.source!r}."
        )
    field = "--config.data.source" if monitor.source == "auto" else "--config.monitor.source"
    bank, queries = (
        sources.open_source(
            address, data.data_dir, field=field, decode=data.decode, index_dir=index_dir
        )
        for address in addresses
    )
    for address, source in zip(addresses, (bank, queries), strict=True):
        if isinstance(source, Stream) or source.labels is None:
            rule = "The kNN monitor needs labelled images with random access"
            if monitor.source != "auto":
                raise ValueError(f"{rule}. Received: {address!r}. Set --config.monitor.source.")
            log.info("The kNN monitor is off. %s, which %s is not.", rule, address)
            return None, None
    return bank, queries


def _describe(monitor, bank, queries, num_classes, chance):
    """Logs what the scores mean, and warns of a k that they suffer from."""
    log.info(
        "kNN monitor: %d images of %d classes classify %d others; chance is %.1f %%.",
        bank.num_examples,
        num_classes,
        queries.num_examples,
        100 * chance,
    )
    per_class = max(bank.num_examples // num_classes, 1)
    if monitor.neighbours > per_class:
        log.warning(
            "The kNN monitor lets %d neighbours vote, but there are %d images a class, so other "
            "classes have most of the votes. Set --config.monitor.neighbours=%d or less.",
            monitor.neighbours,
            per_class,
            per_class,
        )


def _forward(encoder, output, recipe, strategy):
    network = encoder
    if output == "backbone":
        if not isinstance(encoder, Encoder):
            raise ValueError(
                '`features="backbone"` needs an `Encoder`, whose backbone is known. Received: '
                f"{encoder.name}. Join backbone and head by `Encoder(backbone, head)`, or set "
                '`features="projection"`.'
            )
        network = encoder.backbone
    return features.forward(network, recipe, strategy)
