"""Base of the tasks that train a classifier on random crops: the linear protocol, fine-tuning."""

import math
import os
from typing import ClassVar

import numpy as np

from moco_tf.data import labelled
from moco_tf.data.recipes import standard
from moco_tf.evaluation.classification import Classification, Outcome, softmax
from moco_tf.evaluation.classifier import Classifier
from moco_tf.evaluation.config import check_supervised
from moco_tf.log import log
from moco_tf.optim import SGD
from moco_tf.training import fit, metrics_file
from moco_tf.training import plan as plans
from moco_tf.training.config import Length


class Supervised(Classification):
    """Trains or resumes a classifier on labels, and tests it; saves it as classifier.keras.

    Subclasses define `make_classifier`.

    Attributes:
        protocol: the protocol in a few words.
        remedy: advice to the user if the loss is not finite.
        remedy_for_divergence: advice to the user if the loss ends far above chance.
    """

    trains = True
    protocol: ClassVar[str]
    remedy: ClassVar[str]
    remedy_for_divergence: ClassVar[str]

    @classmethod
    def check(cls, config):
        super().check(config)
        check_supervised(config)

    def make_classifier(self) -> Classifier:
        """The untrained classifier on the encoder's backbone; in the strategy's scope."""
        raise NotImplementedError(f"{type(self).__name__} must define `make_classifier`.")

    def head_factor(self) -> float:
        """The classifier's learning rate divided by the backbone's."""
        return 1.0

    def prepare(self):
        super().prepare()
        config = self.config
        bn_group_size = getattr(config, "bn_group_size", None)
        self.plan = plans.make_plan(
            config,
            self.splits.train.num_examples,
            Length(epochs=config.test_every_epochs),
            bn_group_size,
        )
        self.layout = plans.make_layout(config, self.strategy, bn_group_size=bn_group_size)
        with self.strategy.scope():
            self.model = self.make_classifier()
            self.model.compile(
                SGD(
                    plans.make_schedule(config, self.plan.steps_per_epoch),
                    momentum=config.optimizer.momentum,
                    weight_decay=config.optimizer.weight_decay,
                    factors={"fc": self.head_factor()},
                )
            )
            self.model.optimizer.build(self.model.trainable_variables)
            self.predict_all = self.forward(self.model.features_and_logits)

    def train(self, stop):
        fit.fit(
            self.model,
            os.path.join(self.workdir, "classifier.keras"),
            self.config,
            self.plan,
            self._dataset,
            self._step,
            self._scores,
            stop,
            remedy=self.remedy,
            max_bad_fraction=self.config.data.max_bad_fraction,
        )

    def _dataset(self, host, start_step):
        return labelled.labelled_dataset(
            self.splits.train,
            standard.training_crop(self.crop.recipe),
            self.layout,
            host=host,
            image_size_px=self.crop.image_size_px,
            num_classes=self.splits.num_classes,
            seed=self.config.seed,
            start_step=start_step,
            shuffle_buffer=self.config.data.shuffle_buffer,
        )

    def _step(self, batch):
        x = labelled.normalized(self.crop.recipe, batch["x"])
        return self.model.step(batch | {"x": x})

    def _scores(self):
        """Test accuracy, for the curve."""
        outputs = self.outputs(self.predict_all, "test", None)
        hits = outputs.x[1].argmax(axis=1) == outputs.labels
        return {"test_top1": float(np.mean(hits[outputs.ok]))}

    def classify(self):
        losses, curves = [], metrics_file.Curves(["loss", "test_top1"])
        for line in metrics_file.lines_of(os.path.join(self.workdir, "metrics.jsonl")):
            curves.add(line)
            losses += [line["loss"]] if "loss" in line else []
        outputs = self.outputs(self.predict_all, "test", "test")
        means = epoch_means(losses, self.plan.steps_per_epoch)
        protocol = self._protocol()
        details = {"training_loss": means[-1]}
        if self._diverged(means):
            details["diverged"] = True
            protocol += ", DIVERGED"
        return Outcome(
            scores=softmax(outputs.x[1][outputs.ok]),
            labels=outputs.labels[outputs.ok],
            features=outputs.x[0][outputs.ok],
            numbers=np.flatnonzero(outputs.ok),
            protocol=protocol,
            details=details,
            curves=[
                _curve("training loss", "loss", *curves.points("loss")),
                _curve("test top-1", "top-1", *curves.points("test_top1")),
            ],
        )

    def _protocol(self):
        plan = self.plan
        epochs = plan.stop / plan.steps_per_epoch
        text = f"{self.protocol}, random crops, {epochs:g} epochs of {self.config.batch_size}"
        if plan.stop < plan.total:
            text += f", stopped early of {plan.total / plan.steps_per_epoch:g}"
        return f"{text}, lr {self.config.optimizer.learning_rate:g}"

    def _diverged(self, means):
        """Whether the loss of an epoch after the first is far above chance; warns if it is."""
        chance = math.log(self.splits.num_classes)
        worst = max(means[1:] or means)
        if worst <= 2 * chance:
            return False
        log.warning(
            "The training loss of an epoch, %.3g, is far above chance, %.3g: it diverged. %s",
            worst,
            chance,
            self.remedy_for_divergence,
        )
        return True


def epoch_means(losses: list[float], steps_per_epoch: int) -> list[float]:
    """Mean loss of each epoch; the last may be incomplete.

    Example:
        >>> epoch_means([4.0, 2.0, 1.0], steps_per_epoch=2)
        [3.0, 1.0]
    """
    starts = range(0, len(losses), steps_per_epoch)
    return [float(np.mean(losses[i : i + steps_per_epoch])) for i in starts]


def _curve(title, label, steps, values):
    return title, "step", steps.tolist(), {label: values.tolist()}
