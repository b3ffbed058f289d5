"""Export of trained classifiers as SavedModels: encoded images in, class scores out."""

import os
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from moco_tf import interop
from moco_tf.backbones.encoder import Encoder
from moco_tf.encoders import Loaded, Preprocessing, digest
from moco_tf.evaluation import results


class SavedClassifier(NamedTuple):
    """A classifier that an evaluation trained and saved.

    Attributes:
        backbone: model from normalized images to features, NxC.
        head: `(weights CxK, bias K, names of the K classes)` on the features.
        crop: `Preprocessing` of the evaluation's test images.
        record: content of the evaluation's results.json.
    """

    backbone: keras.Model
    head: tuple[np.ndarray, np.ndarray, list[str]]
    crop: Preprocessing
    record: dict


def load_classifier(workdir: str, loaded: Loaded | None = None) -> SavedClassifier:
    """Loads the classifier of a finished evaluation.

    Args:
        workdir: folder of `evaluate.py --task=linear`, `linear_cached` or `finetune`.
        loaded: encoder on whose features it must have been trained; None: any.

    Raises:
        ValueError: if the workdir has no classifier, or one of another encoder.
    """
    path = os.path.join(workdir, "classifier.keras")
    if not tf.io.gfile.exists(path):
        raise ValueError(
            "A classifier must be the workdir of a finished linear, linear_cached or finetune "
            f"evaluation. Received: {workdir!r}, without classifier.keras."
        )
    record = results.read(workdir)
    if "preprocessing" not in record:
        raise ValueError(
            "The evaluation's results.json must say how its images were prepared. Received: that "
            f"of {workdir!r}, written by another version. Run the evaluation again."
        )
    _, backbone, dense = keras.models.load_model(path, compile=False).layers
    if loaded and digest(backbone) != digest(loaded.encoder.backbone):
        raise ValueError(
            f"The classifier must have been trained on the features of {loaded.path}. Received: "
            f"{workdir!r}, with another backbone. If it was fine-tuned, export it by itself: "
            f"--checkpoint={workdir}"
        )
    head = (*dense.get_weights(), record["data"]["class_names"])
    return SavedClassifier(backbone, head, Preprocessing.from_dict(record["preprocessing"]), record)


def export_classification(workdir: str, output: str) -> str:
    """Writes a trained classifier as OUTPUT/VERSION/, see `interop.export_savedmodel`.

    Images are prepared as in the evaluation's test.

    Args:
        workdir: same as in `load_classifier`.
        output: folder, local or gs://.

    Returns:
        Path of the version's folder.
    """
    classifier = load_classifier(workdir)
    names = ("task", "checkpoint", "config", "preprocessing", "metrics", "versions")
    metadata = {name: classifier.record[name] for name in names}
    metadata["classes"] = classifier.record["data"]["class_names"]
    return interop.export_savedmodel(
        Encoder(classifier.backbone),
        output,
        classifier.crop,
        classifier=classifier.head,
        default="classify_bytes",
        metadata=metadata,
    )
