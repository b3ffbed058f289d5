"""Linear task on cached features: sweeps learning rates and weight decays, keeps the best."""

import math
import os

import keras
import numpy as np

from moco_tf import distribute
from moco_tf.evaluation import labelled
from moco_tf.evaluation.classification import Classification, Outcome, softmax
from moco_tf.evaluation.config import LinearCached
from moco_tf.log import log
from moco_tf.probes import linear


class LinearCachedTask(Classification):
    """Trains a classifier for each learning rate and weight decay; saves the best.

    The pair that is best on held-out training images is trained again on all of them.
    """

    name = "linear_cached"
    Config = LinearCached
    needs_float32 = True

    def prepare(self):
        super().prepare()
        config = self.config
        pairs = [(r, d) for r in config.learning_rates for d in config.weight_decays]
        self.pairs = pairs  # (learning rate, weight decay)
        labels = getattr(self.splits.train, "labels", None)
        if labels is None or len(pairs) == 1:
            return
        counts = np.bincount(labels, minlength=self.splits.num_classes)
        few = np.flatnonzero(counts < 2)
        if len(few):
            named = ", ".join(f"{self.splits.classes[i]} with {counts[i]}" for i in few[:5])
            raise ValueError(
                "A sweep needs two training images of each class, one to hold out. Received: "
                f"{named} ({len(few)} of {len(counts)} classes). Give one "
                "`--config.learning_rates` and one `--config.weight_decays` instead."
            )

    def classify(self):
        config = self.config
        train, test = self.encoder_outputs()
        decoded = np.flatnonzero(train.ok)
        x, y = train.x[0].at(decoded), train.labels[decoded]
        sweep = []
        rate, decay = self.pairs[0]
        if len(self.pairs) > 1:
            sweep, held_out = self._sweep(x, y)
            best = best_of(sweep, held_out)
            rate, decay = best["learning_rate"], best["weight_decay"]
            self._explain(sweep, rate)
        log.info("Learning rate %g and weight decay %g, on all training images.", rate, decay)
        final = self._fit(x, y, [rate], [decay], "final")
        if not np.isfinite(final.losses[0]):
            raise FloatingPointError(
                f"The loss must be finite. Received: {final.losses[0]} at learning rate {rate:g}. "
                "Lower `--config.learning_rates`, or give several."
            )
        if distribute.is_chief(self.strategy):
            self._save(final)
        numbers = np.flatnonzero(test.ok)
        features = test.x[0].at(numbers)
        protocol = (
            f"SGD on backbone features of center crops, {config.epochs} epochs, lr {rate:g}, "
            f"weight decay {decay:g}"
        )
        if sweep:
            protocol += ", chosen on held-out training images"
        return Outcome(
            scores=softmax(final.logits(0, features)),
            labels=test.labels[numbers],
            features=features,
            numbers=numbers,
            protocol=protocol,
            details={"sweep": sweep, "learning_rate": rate, "weight_decay": decay},
            curves=self._curves(sweep, rate),
        )

    def _fit(self, x, y, rates, decays, title):
        config = self.config
        return linear.fit(
            x,
            y,
            self.splits.num_classes,
            rates,
            decays,
            momentum=config.momentum,
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
            title=title,
        )

    def _sweep(self, x, y):
        """Accuracy of each pair on held-out training images, and the number of these images."""
        config = self.config
        held_out = labelled.balanced(y, config.held_out, config.seed)
        learn = np.setdiff1d(np.arange(len(y)), held_out)
        rates = [rate for rate, _ in self.pairs]
        decays = [decay for _, decay in self.pairs]
        classifiers = self._fit(x.at(learn), y[learn], rates, decays, "sweep")
        sweep = []
        for i, (rate, decay) in enumerate(self.pairs):
            predicted, is_finite = classifiers.predict(i, x.at(held_out))
            finite = bool(np.isfinite(classifiers.losses[i]) and is_finite)
            accuracy = float(np.mean(predicted == y[held_out])) if finite else 0.0
            sweep.append(
                {
                    "learning_rate": rate,
                    "weight_decay": decay,
                    "accuracy": accuracy,
                    "finite": finite,
                }
            )
        if not any(entry["finite"] for entry in sweep):
            raise FloatingPointError(
                "At least one learning rate must train. Received: all diverge, of "
                f"{', '.join(f'{rate:g}' for rate in config.learning_rates)}. Lower "
                "`--config.learning_rates`."
            )
        return sweep, len(held_out)

    def _explain(self, sweep, rate):
        """Logs why the rate was chosen; warns if the best accuracy is at an end of the rates."""
        top = max(entry["accuracy"] for entry in sweep)
        best = sorted({e["learning_rate"] for e in sweep if e["accuracy"] == top and e["finite"]})
        if rate not in best:
            log.info(
                "Learning rate %g is the smallest within one standard error of the best, %g.",
                rate,
                best[0],
            )
        if more := more_rates(best, self.config.learning_rates):
            log.warning(
                "The best accuracy is at the end of the learning rates tried, %s. Try more: "
                "--config.learning_rates=%s",
                ",".join(f"{r:g}" for r in best),
                ",".join(f"{r:g}" for r in more),
            )

    def _curves(self, sweep, rate):
        if not sweep:
            return []
        accuracies = {
            f"weight decay {decay:g}": [
                entry["accuracy"] for entry in sweep if entry["weight_decay"] == decay
            ]
            for decay in self.config.weight_decays
        }
        rates = np.log10(self.config.learning_rates)
        title = f"sweep, on held-out training images; chosen: {rate:g}"
        return [(title, "log10(learning rate)", rates, accuracies)]

    def _save(self, classifiers):
        """Saves the backbone with the first classifier on it, from normalized images to logits."""
        backbone = self.loaded.encoder.backbone
        images = keras.Input(backbone.input_shape[1:], name="images")
        head = keras.layers.Dense(self.splits.num_classes, dtype="float32", name="fc")
        network = keras.Model(images, head(backbone(images)), name="classifier")
        head.set_weights([classifiers.weights[0], classifiers.biases[0]])
        network.save(os.path.join(self.workdir, "classifier.keras"))


def more_rates(best: list[float], rates: tuple[float, ...]) -> list[float]:
    """Rates to try next if the best ones are at one end of those tried; [] if they are not.

    Args:
        best: rates with the best accuracy, ascending.
        rates: all rates that were tried.

    Example:
        >>> more_rates([30.0], (0.1, 1.0, 30.0))
        [0.1, 1.0, 30.0, 100.0, 300.0]
        >>> more_rates([1.0, 30.0], (0.1, 1.0, 30.0))
        []
    """
    tried = sorted(rates)
    if len(tried) < 2 or len(best) > 1:
        return []
    if best[0] == tried[-1]:
        return [*tried, float(f"{best[0] * 3.3:.1g}"), float(f"{best[0] * 10:.1g}")]
    if best[0] == tried[0]:
        return [float(f"{best[0] / 10:.1g}"), float(f"{best[0] / 3.3:.1g}"), *tried]
    return []


def best_of(sweep: list[dict], num_images: int) -> dict:
    """The best entry of a sweep: the smallest learning rate among the best accuracies.

    Accuracies within one standard error of the best one count as equally good. A small rate also
    suits random crops; a larger one that is better by chance may not.

    Args:
        sweep: entries with learning_rate, accuracy and finite.
        num_images: number of images that the accuracies were measured on.
    """
    top = max(entry["accuracy"] for entry in sweep)
    error = math.sqrt(top * (1 - top) / num_images)
    as_good = [entry for entry in sweep if entry["finite"] and entry["accuracy"] >= top - error]
    return min(as_good, key=lambda entry: (entry["learning_rate"], -entry["accuracy"]))
