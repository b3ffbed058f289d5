"""Export of a detector as a SavedModel: encoded images in; boxes, masks and keypoints out.

The network runs on one image at a time, scaled and padded as a test batch of one. So an answer does
not depend on the other images of a request, and needs the memory of one image. It equals
predictions.json if the padding was the same there: with `test_batch_size=1`, `data.square_px`, or
images of one size. A test batch of several sizes is padded to the largest, which moves boxes and
scores a little.

Masks are probabilities within the box, not masks of the image. For 100 detections in an image of
800 x 1333 px, the probabilities take 313 kB (S = 28, float32), whatever the image. Masks of the
image would take 107 MB, or 250 kB as PNG after 1.5 s of compression. `masks.paste` makes a mask of
the image from probabilities; other clients resize them to the box, bilinear, and keep what is at
least .5.
"""

import os
from collections.abc import Sequence

import keras
import tensorflow as tf

from moco_tf import schema
from moco_tf.data.labelled import fill_of
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.detection.build import make_detector
from moco_tf.detection.config import Data, Detection
from moco_tf.detection.data import scaling
from moco_tf.detection.data.objects import EMPTY
from moco_tf.detection.model.detector import Detector
from moco_tf.detection.tester import UNITS
from moco_tf.evaluation import results
from moco_tf.interop import savedmodel, serving_graph, warmup


class DetectionServer(tf.Module):
    """Serving signatures of a detector.

    Args:
        model: `Detector`, or an object with its `network` and its `predict`.
        classes: names of the K classes.
        data: `config.Data` with the scaling and padding of test images.
        fill: color of the padding, uint8 3.
    """

    def __init__(self, model: Detector, classes: Sequence[str], data: Data, fill: Sequence[int]):
        super().__init__()
        # Variables that a signature uses must be reachable from the module.
        self.weights = [v.value for v in model.network.variables]
        self._predict = model.predict
        self._classes = classes
        self._data = data
        self._fill = fill
        # Traced once for all signatures.
        self._of_image = tf.function(self._detected, autograph=False).get_concrete_function(
            tf.TensorSpec([None, None, 3], tf.uint8, "image")
        )
        outputs = self._of_image.structured_outputs
        self._specs = {name: tf.TensorSpec.from_tensor(x) for name, x in outputs.items()}

    def signatures(self):
        """Dict from the names of the signatures to concrete functions.

        For N images they return D rows per image, in order of falling score:
            boxes: float32 NxDx4: x1, y1, x2, y2 in px of the image, continuous, pixel i covers
                [i, i + 1); scores: float32 NxD, in [0, 1].
            classes: int32 NxD, numbers from 0; class_names: string NxD.
            masks: float32 NxDxSxS, probabilities of S x S equal cells of the box.
            keypoints: float32 NxDxJx3: x, y in px of the image, and the probability of the place.
            densepose: uint8 NxDx56x56x3, of equal cells of the box: part, 255 U, 255 V.
            ok: bool N, false where image bytes cannot be decoded; only for bytes.
        Rows after the last detection are 0, with class -1 and an empty name; so are all rows where
        `ok` is false.
        """
        by_bytes = tf.function(self._of_bytes, autograph=False).get_concrete_function(
            tf.TensorSpec([None], tf.string, "image_bytes")
        )
        by_images = tf.function(self._of_images, autograph=False).get_concrete_function(
            tf.TensorSpec([None, None, None, 3], tf.uint8, "images")
        )
        return {"serving_default": by_bytes, "detect_bytes": by_bytes, "detect_images": by_images}

    def _of_images(self, images):
        return tf.map_fn(
            self._of_image, images, parallel_iterations=1, fn_output_signature=self._specs
        )

    def _of_bytes(self, encoded):
        def nothing():
            zeros = {name: tf.zeros(s.shape, s.dtype) for name, s in self._specs.items()}
            return zeros | {"classes": zeros["classes"] + EMPTY}

        def detected_or_nothing(content):
            image, ok = serving_graph.decode_or_blank(content)
            # Without the condition, a blank would be scaled up and cost as much as an image.
            return tf.cond(ok, lambda: self._of_image(image), nothing) | {"ok": ok}

        specs = self._specs | {"ok": tf.TensorSpec([], tf.bool)}
        return tf.map_fn(
            detected_or_nothing, encoded, parallel_iterations=1, fn_output_signature=specs
        )

    def _detected(self, image):
        """The detections in an image, uint8 HxWx3: one row of each output except `ok`."""
        data, original = self._data, tf.shape(image)[:2]
        size = scaling.resized(original[None], data.test_short_px, data.longest_px)[0]
        x = scaling.padded(
            scaling.scaled(image, size),
            scaling.padded_size(size, data.pad_px, data.square_px),
            self._fill,
            data.square_px,
        )
        predicted = {name: rows[0] for name, rows in self._predict(x[None], size[None]).items()}
        factor = tf.cast(size, tf.float32) / tf.cast(original, tf.float32)
        return self._in_image(predicted, tf.cast(original, tf.float32)[::-1], factor[::-1])

    def _in_image(self, predicted, original, factor):
        """Predictions in px of the original image, with all rows.

        Args:
            predicted: dict of one row of `Detector.predict`.
            original: float32 2, width and height of the image.
            factor: float32 2, px of the network's input in a px of the image, of x and of y.
        """
        label = predicted["label"]
        is_valid = label >= 0
        boxes = predicted["boxes"] / tf.tile(factor, [2])
        names = tf.constant([*self._classes, ""])
        outputs = {
            "boxes": tf.clip_by_value(boxes, 0.0, tf.tile(original, [2])),
            "scores": predicted["score"],
            "classes": label,
            "class_names": tf.gather(names, tf.where(is_valid, label, len(self._classes))),
        }
        if "mask" in predicted:
            outputs["masks"] = tf.where(is_valid[:, None, None], predicted["mask"], 0.0)
        if "keypoints" in predicted:
            points = predicted["keypoints"] / tf.concat([factor, [1.0]], axis=0)
            outputs["keypoints"] = tf.where(is_valid[:, None, None], points, 0.0)
        if "densepose" in predicted:
            cells = tf.where(is_valid[:, None, None, None], predicted["densepose"] * UNITS, 0.0)
            outputs["densepose"] = tf.cast(tf.round(cells), tf.uint8)
        return outputs


def export_detection(workdir: str, output: str) -> str:
    """Writes a finished detection as OUTPUT/VERSION/, see `interop.export_savedmodel`.

    Args:
        workdir: folder of a finished run of evaluate.py --task=detection.
        output: local or gs:// folder.

    Returns:
        Path of the version's folder.

    Raises:
        ValueError: if the run is not finished.
    """
    finished = results.read(workdir)
    config = schema.from_dict(Detection, finished["config"])
    network = keras.models.load_model(os.path.join(workdir, "detector.keras"), compile=False)
    recipe = Recipe(None, (), **finished["normalization"])  # only the normalization is used
    model = make_detector(config, network, recipe)
    classes = finished["data"]["class_names"]
    server = DetectionServer(model, classes, config.data, fill_of(recipe))
    names = ("checkpoint", "config", "normalization", "metrics", "versions")
    metadata = {name: finished[name] for name in names} | {"classes": classes}
    metadata["keypoint_names"] = finished["data"]["keypoint_names"]
    signatures = server.signatures()
    return savedmodel.write_version(
        server, signatures, output, metadata, warmup.of_one_image(signatures)
    )
