"""The tasks on features of centre crops: kNN and linear classifiers."""

import math
import os

import keras
import numpy as np

from moco_tf import distribute
from moco_tf.evaluation import labelled, results
from moco_tf.evaluation.context import Outcome
from moco_tf.log import log
from moco_tf.probes import knn, linear


def run_knn(context):
    """kNN on backbone features and on the projection, for all k in one pass.

    Args:
        context: `Context` of a `config.Knn`.

    Returns:
        `Outcome` for the first k, on backbone features.
    """
    config, pair = context.config, context.pair
    train, test = context.encoder_outputs()
    bank_labels, labels = train.labels[train.ok], test.labels[test.ok]
    details, headline = {"knn": {}}, None
    for name, bank, queries in zip(("backbone", "projection"), train.x, test.x):
        bank = bank if train.ok.all() else bank[train.ok]
        cosine, index = knn.nearest(bank, queries[test.ok], max(config.neighbours), title=name)
        found = details["knn"][name] = {}
        for k in config.neighbours:
            near = bank_labels[index[:, :k]]
            scores = knn.votes(cosine[:, :k], near, pair.num_classes, config.temperature)
            scores /= scores.sum(axis=1, keepdims=True)
            headline = scores if headline is None else headline
            found[str(k)] = results.measure(scores, labels)["top1"]["value"]
        line = ", ".join(f"k={k} {value:.1%}" for k, value in found.items())
        log.info("kNN on the %s: %s", name, line)
    k = min(config.neighbours[0], len(bank_labels))
    return Outcome(
        headline,
        labels,
        test.x[0][test.ok],
        np.flatnonzero(test.ok),
        f"k = {k}, t = {config.temperature:g}, backbone features of centre crops",
        details,
        [("kNN top-1", "k", sorted(config.neighbours), _by_neighbours(details["knn"]))],
    )


def _by_neighbours(found):
    return {
        name: [v for _, v in sorted((int(k), v) for k, v in accuracies.items())]
        for name, accuracies in found.items()
    }


def run_linear_cached(context):
    """The best of many linear classifiers on backbone features; saves it as classifier.keras.

    Args:
        context: `Context` of a `config.LinearCached`.

    Returns:
        `Outcome`.
    """
    config, pair = context.config, context.pair
    train, test = context.encoder_outputs()
    x, y = train.x[0], train.labels
    if not train.ok.all():
        x, y = x[train.ok], y[train.ok]
    options = dict(
        momentum=config.momentum,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
    )
    pairs = [(r, d) for r in config.learning_rates for d in config.weight_decays]
    sweep = []
    best = pairs[0]
    if len(pairs) > 1:
        best, sweep = _choose(x, y, pair.num_classes, pairs, options, config)
    log.info("Learning rate %g and weight decay %g, on all training images.", *best)
    final = linear.fit(x, y, pair.num_classes, *zip(best), title="final", **options)
    if not np.isfinite(final.losses[0]):
        raise FloatingPointError(
            f"The loss must be finite. Received: {final.losses[0]} at learning rate {best[0]:g}. "
            "Lower `--config.learning_rates`, or give several."
        )
    features = test.x[0][test.ok]
    scores = softmax(final.logits(0, features))
    if distribute.is_chief(context.strategy):
        _save(context, final)
    lines = {
        f"weight decay {decay:g}": [s["accuracy"] for s in sweep if s["weight_decay"] == decay]
        for decay in config.weight_decays
    }
    rates = np.log10(config.learning_rates)
    curves = [("sweep, on held-out training images", "log10(learning rate)", rates, lines)]
    return Outcome(
        scores,
        test.labels[test.ok],
        features,
        np.flatnonzero(test.ok),
        f"SGD on backbone features of centre crops, {config.epochs} epochs, lr {best[0]:g}, "
        f"weight decay {best[1]:g}" + (", chosen on held-out training images" if sweep else ""),
        {"sweep": sweep, "learning_rate": best[0], "weight_decay": best[1]},
        curves if sweep else [],
    )


def check_sweep(context):
    """Raises ValueError if a class has no image to hold out, as far as labels are known."""
    config, labels = context.config, getattr(context.pair.train, "labels", None)
    if labels is None or len(config.learning_rates) * len(config.weight_decays) == 1:
        return
    count = int(np.bincount(labels, minlength=context.pair.num_classes).min())
    if count < 2:
        raise ValueError(
            "A sweep needs two training images of each class, one to hold out. Received: a class "
            f"with {count}. Give one `--config.learning_rates` and one `--config.weight_decays` "
            "instead."
        )


def _choose(x, y, num_classes, pairs, options, config):
    """The pair with the best accuracy on held-out images, and all pairs' accuracies."""
    held_out = labelled.balanced(y, config.held_out, config.seed)
    learn = np.setdiff1d(np.arange(len(y)), held_out)
    rates, decays = zip(*pairs)
    found = linear.fit(x[learn], y[learn], num_classes, rates, decays, title="sweep", **options)
    sweep = []
    for i, (rate, decay) in enumerate(pairs):
        logits = found.logits(i, x[held_out])
        finite = bool(np.isfinite(found.losses[i]) and np.isfinite(logits).all())
        accuracy = float(np.mean(logits.argmax(axis=1) == y[held_out])) if finite else 0.0
        sweep.append(
            {"learning_rate": rate, "weight_decay": decay, "accuracy": accuracy, "finite": finite}
        )
    if not any(s["finite"] for s in sweep):
        raise FloatingPointError(
            "At least one learning rate must train. Received: all diverge, of "
            f"{', '.join(f'{r:g}' for r in config.learning_rates)}. "
            "Lower `--config.learning_rates`."
        )
    best = best_of(sweep, len(held_out))
    rate = best["learning_rate"]
    if len(config.learning_rates) > 1 and rate in (min(rates), max(rates)):
        log.warning("The best learning rate, %g, is at the end of those tried. Try more.", rate)
    return (rate, best["weight_decay"]), sweep


def best_of(sweep, num_images):
    """The entry of a sweep with the best accuracy; of those as good, with the smallest rate.

    As good is within a standard error of the accuracy on `num_images`: a small rate also suits
    random crops, and a rate that wins by chance need not.
    """
    top = max(s["accuracy"] for s in sweep)
    error = math.sqrt(top * (1 - top) / num_images)
    as_good = [s for s in sweep if s["finite"] and s["accuracy"] >= top - error]
    return min(as_good, key=lambda s: (s["learning_rate"], -s["accuracy"]))


def _save(context, classifiers):
    """The backbone with the first classifier on it, from normalised images to logits."""
    backbone = context.loaded.encoder.backbone
    images = keras.Input(backbone.input_shape[1:], name="images")
    head = keras.layers.Dense(context.pair.num_classes, dtype="float32", name="fc")
    network = keras.Model(images, head(backbone(images)), name="classifier")
    head.set_weights([classifiers.weights[0], classifiers.biases[0]])
    network.save(os.path.join(context.workdir, "classifier.keras"))


def softmax(logits):
    """Rows of logits, NxK, to rows of probabilities."""
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)
