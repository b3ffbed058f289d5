"""Fine-tuning task. Source: v1, section 4.2 (iNaturalist); SimCLR for few labels."""

from moco_tf import encoders
from moco_tf.evaluation.classifier import Classifier
from moco_tf.evaluation.config import Finetune
from moco_tf.evaluation.supervised import Supervised


class FinetuneTask(Supervised):
    """Trains the backbone and a linear classifier on it, end to end."""

    name = "finetune"
    Config = Finetune
    protocol = "fine-tuned end to end"
    remedy = "Start a new workdir with a lower learning rate."
    remedy_for_divergence = "Lower the learning rate."

    def head_factor(self):
        return self.config.head_factor

    def make_classifier(self):
        backbone = encoders.finetuned_backbone(self.loaded.encoder, self.config.bn_group_size)
        return Classifier(backbone, self.splits.num_classes, frozen=False, seed=self.config.seed)
