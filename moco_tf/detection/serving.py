"""A detection as a SavedModel: image bytes in; boxes, classes, scores, masks and keypoints out.

Each image goes through the network alone, scaled and padded as the run's test scales and pads a
batch of one. So an answer does not depend on the other images of a request, and the memory is that
of one image. It is what predictions.json holds if the padding was the same there: with
`test_batch_size=1`, `data.square_px`, or images of one size. A test batch of several sizes is
padded to the largest, which moves boxes and scores a little.

Masks are the probabilities within the box, not masks of the image. Of 100 detections these are
313 kB (S = 28, float32), and cost the same for every photograph; of an image of 800 x 1333 px the
others are 107 MB as bytes, and as PNG 250 kB, but 1.5 s of compression. `masks.paste` makes one of
them; other clients resize the probabilities to the box, bilinear, and take what is at least .5.
"""

import os

import keras
import tensorflow as tf

from moco_tf import schema
from moco_tf.data.labelled import fill_of
from moco_tf.data.recipes.recipe import Recipe
from moco_tf.detection.config import Detection
from moco_tf.detection.data import scaling
from moco_tf.detection.model.matching import EMPTY
from moco_tf.detection.task import make_detector
from moco_tf.detection.tester import UNITS
from moco_tf.evaluation import results
from moco_tf.interop import savedmodel, serving_graph, warmup


class DetectionServer(tf.Module):
    """Signatures of a detector, with nothing of Python in them.

    Args:
        model: with a `network` and a `predict`, as `Detector` has them; rows that hold no detection
            come last and have a label below 0.
        classes: K names.
        data: `config.Data`, how test images are scaled and padded.
        fill: uint8 color of the padding, 3.
    """

    def __init__(self, model, classes, data, fill):
        super().__init__()
        self.weights = [v.value for v in model.network.variables]  # must be reachable from here
        self._predict, self._classes = model.predict, classes
        self._data, self._fill = data, fill
        # Traced once, for all signatures.
        self._of_image = tf.function(self._detected, autograph=False).get_concrete_function(
            tf.TensorSpec([None, None, 3], tf.uint8, "image")
        )
        outputs = self._of_image.structured_outputs
        self._specs = {name: tf.TensorSpec.from_tensor(x) for name, x in outputs.items()}

    def signatures(self):
        """Dict from the names of the signatures to concrete functions.

        Of N images they give, D rows an image by falling score:
            boxes: float32 NxDx4: x1, y1, x2, y2 in px of the image, continuous, pixel i covers
                [i, i + 1); scores: float32 NxD, in [0, 1].
            classes: int32 NxD, numbers from 0; class_names: string NxD.
            masks: float32 NxDxSxS, probabilities of S x S equal cells of the box.
            keypoints: float32 NxDxJx3: x, y as of boxes, and the probability of the place.
            densepose: uint8 NxDx56x56x3, of equal cells of the box: part, 255 U, 255 V.
            ok: bool N, for bytes; false where they cannot be decoded.
        Rows after the last detection, all of them where `ok` is false, are 0, with class -1 and an
        empty name.
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

        def one(content):
            image, ok = serving_graph.decode_or_blank(content)
            # A blank would be scaled up to the size of the others, at their cost.
            return tf.cond(ok, lambda: self._of_image(image), nothing) | {"ok": ok}

        specs = self._specs | {"ok": tf.TensorSpec([], tf.bool)}
        return tf.map_fn(one, encoded, parallel_iterations=1, fn_output_signature=specs)

    def _detected(self, image):
        """What is in an image, in its pixels: uint8 HxWx3 to a row of each output but `ok`."""
        data, original = self._data, tf.shape(image)[:2]
        size = scaling.resized(original[None], data.test_short_px, data.longest_px)[0]
        x = scaling.padded(
            scaling.scaled(image, size),
            scaling.padded_size(size, data.pad_px, data.square_px),
            self._fill,
            data.square_px,
        )
        found = {name: rows[0] for name, rows in self._predict(x[None], size[None]).items()}
        factor = tf.cast(size, tf.float32) / tf.cast(original, tf.float32)
        return self._in_the_image(found, tf.cast(original, tf.float32)[::-1], factor[::-1])

    def _in_the_image(self, found, original, factor):
        """As `testing.in_the_image`, but with all rows; `original`, `factor`: of x and of y."""
        label = found["label"]
        is_found = label >= 0
        boxes = found["boxes"] / tf.tile(factor, [2])
        names = tf.constant([*self._classes, ""])
        outputs = {
            "boxes": tf.clip_by_value(boxes, 0.0, tf.tile(original, [2])),
            "scores": found["score"],
            "classes": label,
            "class_names": tf.gather(names, tf.where(is_found, label, len(self._classes))),
        }
        if "mask" in found:
            outputs["masks"] = tf.where(is_found[:, None, None], found["mask"], 0.0)
        if "keypoints" in found:
            points = found["keypoints"] / tf.concat([factor, [1.0]], axis=0)
            outputs["keypoints"] = tf.where(is_found[:, None, None], points, 0.0)
        if "densepose" in found:
            cells = tf.where(is_found[:, None, None, None], found["densepose"] * UNITS, 0.0)
            outputs["densepose"] = tf.cast(tf.round(cells), tf.uint8)
        return outputs


def export_detection(workdir, output):
    """Writes a finished detection as OUTPUT/VERSION/, see `interop.export_savedmodel`.

    Args:
        workdir: of evaluate.py --task=detection, finished.
        output: folder, local or gs://.

    Returns:
        The version's folder.

    Raises:
        ValueError: if it is not finished.
    """
    found = results.read(workdir)
    config = schema.from_dict(Detection, found["config"])
    network = keras.models.load_model(os.path.join(workdir, "detector.keras"), compile=False)
    recipe = Recipe(None, (), **found["normalization"])  # of which only this is needed
    model = make_detector(config, network, recipe)
    classes = found["data"]["class_names"]
    server = DetectionServer(model, classes, config.data, fill_of(recipe))
    names = ("checkpoint", "config", "normalization", "metrics", "versions")
    metadata = {name: found[name] for name in names} | {"classes": classes}
    metadata["keypoint_names"] = found["data"]["keypoint_names"]
    signatures = server.signatures()
    return savedmodel.write_version(
        server, signatures, output, metadata, warmup.of_one_image(signatures)
    )
