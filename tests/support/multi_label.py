"""A task from outside the package: a linear probe on images with several labels each."""

import dataclasses
import os

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from moco_tf import encoders
from moco_tf.data import sources
from moco_tf.evaluation.task import Task
from moco_tf.probes import features
from moco_tf.schema import option


@dataclasses.dataclass
class MultiLabelConfig:
    """Two .npz files with images (uint8 NxHxWx3) and labels (NxL, 0 or 1)."""

    train: str | None = option(None, help="path of the training images")
    test: str | None = option(None, help="path of the test images")
    strength: float = option(1.0, above=0, help="inverse of the L2 penalty")
    random_init: bool = option(False, help="an untrained encoder, as the baseline")
    seed: int = option(0, at_least=0, help="seed of new weights")
    deterministic: bool = option(False, help="bitwise repeatable ops")


class MultiLabel(Task):
    """One logistic regression a label, on backbone features."""

    name = "multi_label"
    Config = MultiLabelConfig
    TITLES = {"mean_ap": "mean AP"}  # noqa: RUF012

    def prepare(self):
        self.arrays = {}
        for split in ("train", "test"):
            path = getattr(self.config, split)
            if not path or not os.path.exists(path):
                raise ValueError(f"`--config.{split}` must be an .npz file. Received: {path!r}.")
            self.arrays[split] = np.load(path)
        size = self.arrays["test"]["images"].shape[1]
        self.crop = encoders.preprocessing(self.loaded, image_size_px=size, resize_px=size)

    def test(self):
        network = self.loaded.encoder.backbone
        predict_all = features.forward(network, self.crop.recipe, self.strategy)

        def backbone_features(split):
            source = sources.from_arrays(self.arrays[split]["images"])
            size = self.crop.image_size_px
            outputs = features.extract(predict_all, source, image_size_px=size, resize_px=size)
            return outputs.x[0]

        x_train, x_test = backbone_features("train"), backbone_features("test")
        y_train, y_test = self.arrays["train"]["labels"], self.arrays["test"]["labels"]
        scores = [
            LogisticRegression(C=self.config.strength).fit(x_train, y).decision_function(x_test)
            for y in y_train.T
        ]
        self.scores = np.stack(scores, axis=1)
        mean_ap = average_precision_score(y_test, self.scores, average="macro")
        return {
            "metrics": {"mean_ap": {"value": float(mean_ap)}},
            "protocol": "logistic regression on backbone features",
            "data": {"test_images": len(y_test), "test": self.config.test},
        }

    def report(self, record):
        np.save(os.path.join(self.workdir, "scores.npy"), self.scores)
