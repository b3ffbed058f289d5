"""Linear task: a linear classifier on the frozen backbone. Source: main_lincls.py."""

from moco_tf import encoders
from moco_tf.evaluation.classifier import Classifier
from moco_tf.evaluation.config import Linear
from moco_tf.evaluation.supervised import Supervised

DIVERGED = (
    "The learning rate is too high for these features. --task=linear_cached sweeps the rate for "
    "you."
)


class LinearTask(Supervised):
    """Trains a linear classifier on the frozen backbone, which is in inference mode with its BN."""

    name = "linear"
    Config = Linear
    protocol = "linear on the frozen backbone"
    remedy = DIVERGED
    remedy_for_divergence = DIVERGED

    def make_classifier(self):
        backbone = self.loaded.encoder.backbone
        return Classifier(backbone, self.splits.num_classes, frozen=True, seed=self.config.seed)

    def train(self, stop):
        untouched = encoders.digest(self.model.backbone)
        super().train(stop)
        if encoders.digest(self.model.backbone) != untouched:
            raise AssertionError("The frozen backbone changed. This is a bug: please report it.")

    def classify(self):
        outcome = super().classify()
        outcome.details["backbone_unchanged"] = True
        return outcome
