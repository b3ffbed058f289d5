"""Builds the detector of a config: the class and the settings of its architecture."""

import dataclasses

from moco_tf.data.labelled import normalized
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.detection.config import Detection
from moco_tf.detection.model.detector import Detector
from moco_tf.detection.model.network import Network
from moco_tf.detection.model.retinanet import RetinaNetDetector, RetinaNetwork
from moco_tf.detection.model.settings import RCNN_SETTINGS, RCNNSettings


def make_detector(
    config: Detection,
    network: Network | RetinaNetwork,
    recipe: Recipe,
    static_shapes: bool = False,
) -> Detector:
    """Makes the detector of a config's architecture.

    Args:
        config: config of the task; settings that are none are the architecture's own.
        network: network from `make_network` or `make_retinanet`.
        recipe: recipe whose normalization is used.
        static_shapes: see `Detector`.
    """
    given = {f.name: getattr(config, f.name) for f in dataclasses.fields(RCNNSettings)}
    given = {name: value for name, value in given.items() if value is not None}
    settings = dataclasses.replace(RCNN_SETTINGS[config.architecture], **given)
    detector = RetinaNetDetector if config.architecture == "retinanet" else Detector
    return detector(
        network,
        lambda x: normalized(recipe, x),
        settings,
        static_shapes=static_shapes,
        seed=config.seed,
    )
