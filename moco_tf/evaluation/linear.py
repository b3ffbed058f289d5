"""The linear protocol: a linear classifier on the frozen backbone. Source: main_lincls.py."""

from moco_tf import encoders
from moco_tf.evaluation.classifier import Classifier
from moco_tf.evaluation.config import Linear
from moco_tf.evaluation.supervised import Supervised

DIVERGED = (
    "This learning rate does not suit these features. --task=linear_cached finds one that does, of "
    "many at once."
)


class LinearTask(Supervised):
    """Trains a linear classifier; the backbone stays as it is, in inference mode, BN too."""

    name = "linear"
    Config = Linear
    protocol = "linear on the frozen backbone"
    remedy = DIVERGED
    remedy_for_divergence = DIVERGED

    def make_classifier(self):
        backbone = self.loaded.encoder.backbone
        return Classifier(backbone, self.splits.num_classes, frozen=True, seed=self.config.seed)

    def train(self, stop):
        before = encoders.digest(self.model.backbone)
        super().train(stop)
        if encoders.digest(self.model.backbone) != before:
            raise AssertionError(
                "A frozen backbone changed, which it must not: please report this."
            )

    def classify(self):
        outcome = super().classify()
        outcome.details["backbone_unchanged"] = True
        return outcome
